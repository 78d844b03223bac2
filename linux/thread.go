package linux

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OnSpareThread runs f on an OS thread that ends with it, so that f may leave it in other namespaces. It is never the main
// thread, which /proc/self stands for.
func OnSpareThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() { // which cannot be ended: it waits while another one does the work
			defer runtime.UnlockOSThread()
			done <- OnSpareThread(f)
			return
		}
		done <- f() // never unlocked: the runtime ends the thread with the goroutine
	}()
	return <-done
}
