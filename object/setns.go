package object

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vps/linux"
)

// InNamespace runs f on an OS thread in a namespace of a process, by its pid here. The thread is thrown away.
func InNamespace(pid int, name string, kind int, f func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		return err
	}
	defer ns.Close()
	return linux.OnSpareThread(func() error {
		if kind == unix.CLONE_NEWNS {
			if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread with a root of its own
				return fmt.Errorf("unshare: %w", err)
			}
		}
		if err := unix.Setns(int(ns.Fd()), kind); err != nil {
			return fmt.Errorf("enter %s namespace of process %d: %w", name, pid, err)
		}
		return f()
	})
}

// InDirectory runs f on an OS thread whose current directory is the one that a descriptor is open on, with O_PATH even. The thread is
// thrown away.
func InDirectory(dir int, f func() error) error {
	return linux.OnSpareThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("have a current directory of its own: %w", err)
		}
		if err := unix.Fchdir(dir); err != nil {
			return err
		}
		return f()
	})
}
