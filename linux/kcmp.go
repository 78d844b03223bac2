package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What kcmp(2) compares: enum kcmp_type of include/uapi/linux/kcmp.h.
const (
	KCMP_FILE      = 0
	KCMP_VM        = 1
	KCMP_FILES     = 2
	KCMP_FS        = 3
	KCMP_SIGHAND   = 4
	KCMP_IO        = 5
	KCMP_SYSVSEM   = 6
	KCMP_EPOLL_TFD = 7
)

// KcmpEpollSlot names a file that an epoll instance watches: struct kcmp_epoll_slot of include/uapi/linux/kcmp.h.
type KcmpEpollSlot struct {
	_    structs.HostLayout
	Efd  uint32 // the epoll instance
	Tfd  uint32 // number under which the file was added
	Toff uint32 // which of the files that were added under this number
}

// Kcmp compares a kernel object of two processes (host pids): -1, 0 or 1 by an order that holds until the next boot.
// See kcmp(2) for the two indexes.
func Kcmp(pid1, pid2, kind int, index1, index2 uint64) (int, error) {
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), uintptr(kind), uintptr(index1), uintptr(index2), 0)
	return kcmpOrder(order, errno)
}

// KcmpEpoll compares the open file description of a descriptor of pid1 with one that an epoll instance of pid2 watches.
func KcmpEpoll(pid1, pid2, fd int, slot KcmpEpollSlot) (int, error) {
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), KCMP_EPOLL_TFD, uintptr(fd), uintptr(unsafe.Pointer(&slot)), 0)
	return kcmpOrder(order, errno)
}

func kcmpOrder(order uintptr, errno unix.Errno) (int, error) {
	switch {
	case errno != 0:
		return 0, errno
	case order == 1:
		return -1, nil
	case order == 0:
		return 0, nil
	}
	return 1, nil
}
