package object

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on an OS thread in a namespace of a process, by its pid here. The thread is thrown away.
func inNamespace(pid int, name string, kind int, f func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the runtime ends the thread with the goroutine
		if err := unix.Setns(int(ns.Fd()), kind); err != nil {
			done <- fmt.Errorf("enter %s namespace of process %d: %w", name, pid, err)
			return
		}
		done <- f()
	}()
	return <-done
}
