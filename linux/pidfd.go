package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PidfdInfo is what a pidfd tells of its process: struct pidfd_info of include/uapi/linux/pidfd.h, as of PIDFD_INFO_SIZE_VER0.
type PidfdInfo struct {
	_        structs.HostLayout
	Mask     uint64 // PIDFD_INFO_: what is asked, and what is told
	Cgroup   uint64
	PID      uint32
	TGID     uint32
	PPID     uint32
	IDs      [8]uint32 // ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid
	ExitCode uint32    // as wait(2) gives it
}

// PIDFD_INFO_EXIT asks for the wait status of a process that is gone (Linux 6.15).
const PIDFD_INFO_EXIT = 1 << 3

const pidfdGetInfo = 0xc040ff0b // PIDFD_GET_INFO

// GetPidfdInfo asks a pidfd for what a mask names. Kernels before 6.13 answer ENOTTY.
func GetPidfdInfo(fd int, mask uint64) (PidfdInfo, error) {
	info := PidfdInfo{Mask: mask}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return info, errno
	}
	return info, nil
}
