package object

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/linux"
	"vps/remote"
)

// MaxPID is the highest pid that a kernel can be told to give (PID_MAX_LIMIT, include/linux/threads.h).
const MaxPID = 1 << 22

// OpenProc finds a process of an instance by its pid here. level is the depth of the instance's pid namespace, see [ReadLevel];
// a process below it is a [Refusal]. The caller closes what it gets.
func OpenProc(pid, level int) (Proc, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Proc{PidFD: -1}, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := Proc{Host: pid, PidFD: fd}
	s, err := ReadStatus(pid)
	if err == nil {
		err = s.CheckLevel(level)
	}
	if err != nil {
		p.Close()
		return Proc{PidFD: -1}, err
	}
	p.PID, _, _ = s.Inside()
	p.Comm, p.Status = s.Name, s
	if s.State != 'Z' {
		return p, nil
	}
	lead, err := livingThread(pid)
	if err == nil && lead == 0 {
		return p, nil
	}
	p.Close()
	if p.PidFD = -1; err != nil {
		return p, err
	}
	if p.Status, err = ReadStatus(lead); err != nil {
		return p, err
	}
	return p.Thread(lead)
}

// Thread returns the process as one of its threads shows it, by its tid here. The caller closes what it gets, too.
func (p Proc) Thread(tid int) (Proc, error) {
	fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if err == unix.EINVAL {
		return p, &Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "a thread with descriptors of its own, or without its first one",
			Why: "that needs Linux 6.9"}
	}
	if err != nil {
		return p, fmt.Errorf("open task %d: %w", tid, err)
	}
	p.Lead, p.PidFD = tid, fd
	return p, nil
}

// livingThread returns a thread of a process whose first one has ended: the lowest that has not. 0: it is a zombie.
func livingThread(pid int) (int, error) {
	tids, err := remote.Tasks(pid)
	if err != nil {
		return 0, err
	}
	for _, tid := range tids {
		s, err := ReadStatus(tid)
		if err != nil && !Vanished(err) {
			return 0, err
		}
		if err == nil && s.State != 'Z' && s.State != 'X' {
			return tid, nil
		}
	}
	return 0, nil
}

// Close closes the process's pidfd.
func (p Proc) Close() {
	if p.PidFD >= 0 {
		unix.Close(p.PidFD)
	}
}

// ReadLevel returns how many pid namespaces deep a process is, as seen from here.
func ReadLevel(pid int) (int, error) {
	s, err := ReadStatus(pid)
	if err != nil {
		return 0, err
	}
	return len(s.NSpid), nil
}

// Vanished tells whether an error means that a process, or a part of it, has ended while it was looked at.
func Vanished(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist)
}

// namespaces are the links of /proc/PID/ns (namespaces(7)).
var namespaces = []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

// Namespaces are those of an instance's init.
type Namespaces map[string]string // the texts of the links

// ReadNamespaces reads those of an init by its pid here.
func ReadNamespaces(init int) (Namespaces, error) {
	links := make(Namespaces)
	for _, name := range append(namespaces, "pid_for_children", "time_for_children") {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", init, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // this kernel may not have all kinds
			return nil, err
		}
		links[name] = link
	}
	return links, nil
}

// Probe refuses a process that is in other namespaces, or has made some for its children.
func (n Namespaces) Probe(p Proc) error {
	for name, want := range n {
		have, err := os.Readlink("/proc/" + strconv.Itoa(p.Task()) + "/ns/" + name)
		if errors.Is(err, os.ErrNotExist) && Alive(p.PidFD) {
			continue // a namespace for children that nobody has entered yet, or none of this kind in this kernel
		}
		if err != nil {
			return err
		}
		if have != want {
			return &Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "its own " + name + " namespace"}
		}
	}
	return nil
}

// Alive tells whether the process of a pidfd has not ended.
func Alive(pidfd int) bool { return unix.PidfdSendSignal(pidfd, 0, nil, 0) == nil }

// ProbeProcess refuses kinds of processes that cannot be dumped.
func ProbeProcess(p Proc) error {
	s := p.Status
	refuse := func(object string) error {
		return &Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: object}
	}
	switch {
	case s.TracerPID != 0:
		return refuse("being traced")
	case s.ThreadFeatures != "":
		return refuse("a shadow stack")
	case s.Seccomp == 1:
		return refuse("seccomp strict mode")
	}
	tasks, err := remote.Tasks(p.Host)
	if err != nil {
		return err
	}
	for _, tid := range tasks {
		if linux.CoreCookie(tid) != 0 {
			return refuse("core scheduling (PR_SCHED_CORE)")
		}
		waits, err := remote.WaitsInVfork(tid)
		if err != nil {
			return err
		}
		if waits {
			return fmt.Errorf("%w: %w", ErrBusy, &Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "vfork",
				Why: "it waits for a child that has not executed a program yet"})
		}
	}
	return nil
}
