package file

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/object"
)

// Link is a descriptor and what has been seen of it.
type Link struct {
	Handle
	Text   string  // that of the link in /proc/PID/fd
	Domain int     // of a socket, SO_DOMAIN of socket(7); 0: it is none
	info   *fdinfo // of a socket; what others show there may change while nobody runs
}

// links looks at all descriptors of a process, which is stopped, in ascending order. It does so once.
func (d *Descriptors) links(p object.Proc) ([]Link, error) {
	if links, ok := d.seen[p.Task()]; ok {
		return links, nil
	}
	links, err := readLinks(&p)
	if err != nil {
		return nil, fmt.Errorf("descriptors of pid %d: %w", p.PID, err)
	}
	d.seen[p.Task()] = links
	return links, nil
}

// infoSize is what most have to tell in fdinfo, and more.
const infoSize = 4096

// openInfos opens the directory of fdinfo: the way there is the longer part of reading a file of it.
func openInfos(host int) (*os.File, error) { return os.Open("/proc/" + strconv.Itoa(host) + "/fdinfo") }

// linksAtOnce is how many descriptors one goroutine looks at.
const linksAtOnce = 256

func readLinks(p *object.Proc) ([]Link, error) {
	fds, err := Numbers(p.Task())
	if err != nil {
		return nil, err
	}
	slices.Sort(fds)
	infos, err := openInfos(p.Task())
	if err != nil {
		return nil, err
	}
	defer infos.Close()
	links := make([]Link, len(fds))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for first := 0; first < len(fds); first += linksAtOnce {
		g.Go(func() error {
			buf := make([]byte, infoSize)
			for i := first; i < min(first+linksAtOnce, len(fds)); i++ {
				links[i].Handle = Handle{p, p.Task(), p.PidFD, fds[i]}
				if err := links[i].read(int(infos.Fd()), buf); err != nil {
					return fmt.Errorf("fd %d: %w", fds[i], err)
				}
			}
			return nil
		})
	}
	return links, g.Wait()
}

// read looks at a descriptor. A copy tells of a socket what its link does, in a fraction of the time. infos is the directory of
// fdinfo, and buf holds what is read there.
func (l *Link) read(infos int, buf []byte) error {
	fd, err := l.Copy()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK || unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.SOCKFS_MAGIC {
		l.Text, err = os.Readlink(l.path("fd"))
		return err
	}
	l.Text = fmt.Sprintf("socket:[%d]", st.Ino)
	if l.Domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return fmt.Errorf("family of %s: %w", l.Text, err)
	}
	text, err := readAt(infos, strconv.Itoa(l.fd), buf)
	if err != nil {
		return fmt.Errorf("read %s: %w", l.path("fdinfo"), err)
	}
	info, err := parseInfo(text)
	if err != nil {
		return fmt.Errorf("read %s: %w", l.path("fdinfo"), err)
	}
	l.info = &info
	return nil
}

// details are what fdinfo tells.
func (l *Link) details() (fdinfo, error) {
	if l.info != nil {
		return *l.info, nil
	}
	return l.Handle.info()
}

// readAt reads a file of a directory, with a buffer for what most have.
func readAt(dir int, name string, buf []byte) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for text := buf[:0]; ; {
		if len(text) == cap(text) {
			text = slices.Grow(text, len(buf))
		}
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if n <= 0 || err != nil {
			return text, err
		}
		text = text[:len(text)+n]
	}
}
