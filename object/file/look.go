package file

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/object"
	"vps/object/fdinfo"
)

// Handle is a descriptor of a process: a way to reach an open file description.
type Handle struct {
	proc  *object.Proc // for messages; nil: a descriptor of ours that came out of a socket's queue
	host  int
	pidfd int
	fd    int
}

// Copy duplicates the descriptor into our process. Flags of the copy are shared: it is to be read only.
func (h Handle) Copy() (int, error) {
	fd, err := unix.PidfdGetfd(h.pidfd, h.fd, 0)
	if err != nil {
		return -1, fmt.Errorf("copy descriptor %d of process %d: %w", h.fd, h.host, err)
	}
	return fd, nil
}

func (h Handle) path(dir string) string {
	return "/proc/" + strconv.Itoa(h.host) + "/" + dir + "/" + strconv.Itoa(h.fd)
}

// Refusal says what stands in the way, and at which descriptor of which process.
func (h Handle) Refusal(what, why string) *object.Refusal {
	r := &object.Refusal{FD: h.fd, Object: what, Why: why}
	if h.proc != nil {
		r.PID, r.Comm = h.proc.PID, h.proc.Comm
	} else {
		r.FD = -1
	}
	return r
}

// Look is an open file description seen through one descriptor, with a copy of it in our process.
type Look struct {
	At   Handle
	Link string // text of the link in /proc
	info fdinfo.Info
	FD   int // the copy, to be read only
	Stat unix.Stat_t
	fs   int64 // statfs(2) f_type
}

// look opens a look at a descriptor; the caller closes it.
func (h Handle) look(link string, info fdinfo.Info) (*Look, error) {
	l := &Look{At: h, Link: link, info: info}
	fd, err := h.Copy()
	if err != nil {
		return nil, err
	}
	l.FD = fd
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil { // a socket has none
		l.fs = fs.Type
	}
	err = unix.Fstat(fd, &l.Stat)
	switch {
	case err == unix.ENOENT && l.fs == unix.PROC_SUPER_MAGIC:
		l.Stat.Mode = unix.S_IFDIR // /proc/PID/fd of a process that is gone
	case err != nil:
		l.close()
		return nil, fmt.Errorf("fstat %s: %w", link, err)
	}
	return l, nil
}

// Line returns what fdinfo says of a key, "" if nothing.
func (l *Look) Line(key string) string { return l.info.Line(key) }

// Lines returns all that fdinfo says of a key.
func (l *Look) Lines(key string) []string {
	var values []string
	for _, line := range l.info.Lines {
		if line.Key == key {
			values = append(values, line.Value)
		}
	}
	return values
}

// Hex is [Look.Line] for a hexadecimal number.
func (l *Look) Hex(key string) (uint64, error) { return l.info.Hex(key) }

// FS is the type of the file system, as statfs(2) has it; 0: none.
func (l *Look) FS() int64 { return l.fs }

// Flags are the flags of the open file description, as fcntl(2) has them.
func (l *Look) Flags() uint32 { return l.info.Flags }

func (l *Look) close() { unix.Close(l.FD) }

// Reopen opens what a descriptor of ours is open on once more, with flags of our own.
func Reopen(copied int, name string, flags int) (int, error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(copied), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s again: %w", name, err)
	}
	return fd, nil
}

// Numbers lists the open descriptors of a process, by its pid here.
func Numbers(host int) ([]int, error) {
	dir, err := os.Open("/proc/" + strconv.Itoa(host) + "/fd")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	fds := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			fds = append(fds, n)
		}
	}
	return fds, nil
}

// Poll returns the events of a descriptor now.
func Poll(fd int, events int16) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		if _, err := unix.Poll(fds, 0); err != unix.EINTR {
			return fds[0].Revents
		}
	}
}

// WritesDirectly tells whether a process has a file open past the page cache (O_DIRECT): devices write to its memory then.
func WritesDirectly(p object.Proc) (bool, error) {
	fds, err := Numbers(p.Task())
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		h := Handle{&p, p.Task(), p.PidFD, fd}
		copied, err := h.Copy()
		if object.Vanished(err) || errors.Is(err, unix.EBADF) {
			continue
		}
		if err != nil {
			return false, err
		}
		flags, err := unix.FcntlInt(uintptr(copied), unix.F_GETFL, 0)
		unix.Close(copied)
		if err != nil {
			return false, fmt.Errorf("flags of descriptor %d of process %d: %w", fd, p.Task(), err)
		}
		if flags&unix.O_DIRECT == 0 {
			continue
		}
		// To a pipe the flag means something else.
		if link, err := os.Readlink(h.path("fd")); err == nil && strings.HasPrefix(link, "/") {
			return true, nil
		}
	}
	return false, nil
}
