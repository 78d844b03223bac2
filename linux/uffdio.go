package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Features of userfaultfd(2) that let its reader follow what a process does to its memory, UFFD_FEATURE_* of
// include/uapi/linux/userfaultfd.h (Linux 4.11; UFFD_FEATURE_POISON 6.6).
const (
	UFFD_FEATURE_EVENT_FORK   = 1 << 1
	UFFD_FEATURE_EVENT_REMAP  = 1 << 2
	UFFD_FEATURE_EVENT_REMOVE = 1 << 3
	UFFD_FEATURE_EVENT_UNMAP  = 1 << 6
	UFFD_FEATURE_POISON       = 1 << 14
)

// Events that a userfaultfd tells, UFFD_EVENT_* of include/uapi/linux/userfaultfd.h.
const (
	UFFD_EVENT_PAGEFAULT = 0x12
	UFFD_EVENT_FORK      = 0x13
	UFFD_EVENT_REMAP     = 0x14
	UFFD_EVENT_REMOVE    = 0x15
	UFFD_EVENT_UNMAP     = 0x16
)

// Requests of ioctl_userfaultfd(2) and the device, userfaultfd(2).
const (
	USERFAULTFD_IOC_NEW = 0xaa00 // on /dev/userfaultfd: makes a userfaultfd of the caller's memory (Linux 6.1)

	uffdioWake     = 0x8010aa02 // UFFDIO_WAKE: _IOR(0xaa, 0x02, struct uffdio_range)
	uffdioCopy     = 0xc028aa03 // UFFDIO_COPY: _IOWR(0xaa, 0x03, struct uffdio_copy)
	uffdioZeropage = 0xc020aa04 // UFFDIO_ZEROPAGE: _IOWR(0xaa, 0x04, struct uffdio_zeropage)
	uffdioPoison   = 0xc020aa08 // UFFDIO_POISON: _IOWR(0xaa, 0x08, struct uffdio_poison)
)

// UffdioCopy is struct uffdio_copy of include/uapi/linux/userfaultfd.h.
type UffdioCopy struct {
	_             structs.HostLayout
	Dst, Src, Len uint64
	Mode          uint64
	Copy          int64
}

// UffdioZeropage is struct uffdio_zeropage of include/uapi/linux/userfaultfd.h; struct uffdio_poison is the same.
type UffdioZeropage struct {
	_          structs.HostLayout
	Start, Len uint64
	Mode       uint64
	Zeropage   int64
}

// UffdMsg is struct uffd_msg of include/uapi/linux/userfaultfd.h. Arg depends on the event: PAGEFAULT flags, address; FORK
// the new descriptor; REMAP from, to, length; REMOVE and UNMAP start, end.
type UffdMsg struct {
	_     structs.HostLayout
	Event uint8
	_     [7]uint8
	Arg   [3]uint64
}

func uffdIoctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// UffdCopy puts pages into a range whose pages are missing, UFFDIO_COPY, and wakes who waits for them. It returns how many
// bytes it has put, which may be fewer, with the error that ended it: EEXIST for a page that is there, ENOENT for one that is
// not registered, EAGAIN while an event waits to be read, ESRCH if the process is gone.
func UffdCopy(fd int, at uint64, data []byte) (int, error) {
	c := UffdioCopy{Dst: at, Src: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(data)))), Len: uint64(len(data))}
	err := uffdIoctl(fd, uffdioCopy, unsafe.Pointer(&c))
	return int(max(0, c.Copy)), err
}

// UffdZero is UffdCopy of zeros, UFFDIO_ZEROPAGE.
func UffdZero(fd int, start, size uint64) (int, error) {
	z := UffdioZeropage{Start: start, Len: size}
	err := uffdIoctl(fd, uffdioZeropage, unsafe.Pointer(&z))
	return int(max(0, z.Zeropage)), err
}

// UffdPoison lets whoever touches the missing pages of a range get SIGBUS, UFFDIO_POISON. It answers as UffdCopy does.
func UffdPoison(fd int, start, size uint64) (int, error) {
	p := UffdioZeropage{Start: start, Len: size}
	err := uffdIoctl(fd, uffdioPoison, unsafe.Pointer(&p))
	return int(max(0, p.Zeropage)), err
}

// UffdWake wakes who waits for pages of a range, to try again, UFFDIO_WAKE.
func UffdWake(fd int, start, size uint64) error {
	return uffdIoctl(fd, uffdioWake, unsafe.Pointer(&[2]uint64{start, size}))
}
