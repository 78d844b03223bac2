package linux

import (
	"runtime"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bpfLinkCreate is struct link_create of union bpf_attr, include/uapi/linux/bpf.h, for an iterator.
type bpfLinkCreate struct {
	_           structs.HostLayout
	ProgFD      uint32
	TargetFD    uint32
	AttachType  uint32
	Flags       uint32
	IterInfo    uint64
	IterInfoLen uint32
	_           uint32
}

// bpfIterTask is struct task of union bpf_iter_link_info, include/uapi/linux/bpf.h (Linux 6.1).
type bpfIterTask struct {
	_     structs.HostLayout
	TID   uint32
	PID   uint32
	PIDFD uint32
	_     uint32
}

// bpfIterCreate is struct iter_create of union bpf_attr, include/uapi/linux/bpf.h.
type bpfIterCreate struct {
	_      structs.HostLayout
	LinkFD uint32
	Flags  uint32
}

// BPFIterateProcess begins to run an iterator over tasks, or over what they have, for those of one process. The descriptor
// that it returns gives what the program prog writes (bpf(2), BPF_ITER_CREATE).
func BPFIterateProcess(prog, pidfd int) (int, error) {
	task := &bpfIterTask{PIDFD: uint32(pidfd)}
	var pin runtime.Pinner
	pin.Pin(task)
	defer pin.Unpin()
	create := bpfLinkCreate{
		ProgFD: uint32(prog), AttachType: unix.BPF_TRACE_ITER,
		IterInfo: uint64(uintptr(unsafe.Pointer(task))), IterInfoLen: uint32(unsafe.Sizeof(*task)),
	}
	link, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_CREATE, uintptr(unsafe.Pointer(&create)), unsafe.Sizeof(create))
	if errno != 0 {
		return -1, errno
	}
	defer unix.Close(int(link))
	iter := bpfIterCreate{LinkFD: uint32(link)}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_ITER_CREATE, uintptr(unsafe.Pointer(&iter)), unsafe.Sizeof(iter))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
