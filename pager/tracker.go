package pager

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

// tracker follows what a process writes to, by a userfaultfd of its memory that write-protects pages and lets the kernel
// resolve the faults (UFFD_FEATURE_WP_ASYNC). Closing it ends that.
//
// Meanwhile the first write to a page after it was looked for costs the process a fault; tracked mappings do not merge with
// younger ones, a huge page that is written to is split, and a userfaultfd of the process's own is refused there (EBUSY).
type tracker struct {
	uffd    *os.File
	stopped time.Duration // how long the process stood still for it
}

// track makes a userfaultfd in a process, which stands still for that moment, and takes it out.
func track(s *Space) (*tracker, error) {
	at, err := remote.FindSyscall(s.PID, s.VDSO.Start, s.VDSO.End)
	if err != nil {
		return nil, err
	}
	t := &tracker{}
	begin := time.Now()
	err = remote.Pause(s.PID, func(threads []*remote.Thread) error {
		const flags = unix.O_CLOEXEC | unix.O_NONBLOCK | linux.UFFD_USER_MODE_ONLY
		t.uffd, err = threads[0].Open(s.PIDFD, at, unix.SYS_USERFAULTFD, flags)
		return err
	})
	t.stopped = time.Since(begin)
	if err == nil {
		err = linux.UffdEnable(int(t.uffd.Fd()), linux.UFFD_FEATURE_WP_ASYNC)
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("track writes of process %d: %w", s.PID, err)
	}
	return t, nil
}

// add tracks a mapping; false if it cannot be tracked.
func (t *tracker) add(r dump.Range) (bool, error) {
	err := linux.UffdRegister(int(t.uffd.Fd()), r.Start, r.End, linux.UFFDIO_REGISTER_MODE_WP)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return false, nil // not of a kind that can be, or no longer there
	}
	if err != nil {
		return false, fmt.Errorf("track writes to %v: %w", r, err)
	}
	return true, nil
}

func (t *tracker) close() {
	if t.uffd != nil {
		t.uffd.Close()
	}
}
