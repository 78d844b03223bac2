package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// CoreCookie returns the core scheduling cookie of a task (PR_SCHED_CORE_GET of include/uapi/linux/prctl.h); 0: it has none, or cannot
// have one on this kernel and processor, or has ended.
func CoreCookie(tid int) uint64 {
	const get, thread = 0, 0 // PR_SCHED_CORE_GET, PIDTYPE_PID
	var cookie uint64
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SCHED_CORE, get, uintptr(tid), thread, uintptr(unsafe.Pointer(&cookie)), 0); errno != 0 {
		return 0
	}
	return cookie
}
