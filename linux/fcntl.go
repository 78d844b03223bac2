package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FOwnerEx is who gets the signals of an open file: struct f_owner_ex of include/uapi/asm-generic/fcntl.h.
type FOwnerEx struct {
	_    structs.HostLayout
	Type int32 // 0 a thread, 1 a process, 2 a process group
	PID  int32
}

// FcntlGetOwnerEx is F_GETOWN_EX of fcntl(2).
func FcntlGetOwnerEx(fd int) (FOwnerEx, error) {
	var owner FOwnerEx
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETOWN_EX, uintptr(unsafe.Pointer(&owner)))
	if errno != 0 {
		return owner, errno
	}
	return owner, nil
}

// TFD_IOC_SET_TICKS sets how often a timerfd has expired since it was read: include/uapi/linux/timerfd.h. Its argument
// points to a u64, which is not 0.
const TFD_IOC_SET_TICKS = 0x40085400
