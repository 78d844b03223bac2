package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Features of userfaultfd(2), UFFD_FEATURE_* of include/uapi/linux/userfaultfd.h.
const (
	UFFD_FEATURE_WP_ASYNC = 1 << 15 // Linux 6.7; UFFD_FEATURE_WP_UNPOPULATED with it
)

// UffdioAPI is struct uffdio_api of include/uapi/linux/userfaultfd.h.
type UffdioAPI struct {
	_        structs.HostLayout
	API      uint64
	Features uint64
	Ioctls   uint64
}

// UffdioRegister is struct uffdio_register of include/uapi/linux/userfaultfd.h.
type UffdioRegister struct {
	_          structs.HostLayout
	Start, Len uint64
	Mode       uint64
	Ioctls     uint64
}

const (
	UFFD_USER_MODE_ONLY = 1 // of userfaultfd(2), Linux 5.11

	UFFDIO_REGISTER_MODE_MISSING = 1 << 0 // of UFFDIO_REGISTER
	UFFDIO_REGISTER_MODE_WP      = 1 << 1
)

const (
	uffdAPI        = 0xaa       // UFFD_API
	uffdioAPI      = 0xc018aa3f // UFFDIO_API: _IOWR(0xaa, 0x3f, struct uffdio_api)
	uffdioRegister = 0xc020aa00 // UFFDIO_REGISTER: _IOWR(0xaa, 0x00, struct uffdio_register)
)

// UserfaultfdFeatures returns the features that the kernel offers, UFFDIO_API of ioctl_userfaultfd(2).
func UserfaultfdFeatures() (uint64, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|UFFD_USER_MODE_ONLY, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	defer unix.Close(int(fd))
	api := UffdioAPI{API: uffdAPI}
	if _, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, uffdioAPI, uintptr(unsafe.Pointer(&api))); errno != 0 {
		return 0, errno
	}
	return api.Features, nil
}

// UffdEnable asks a new userfaultfd for features, UFFDIO_API of ioctl_userfaultfd(2).
func UffdEnable(fd int, features uint64) error {
	return uffdIoctl(fd, uffdioAPI, unsafe.Pointer(&UffdioAPI{API: uffdAPI, Features: features}))
}

// UffdRegister registers a range of the memory that a userfaultfd is for, which may be another process's, in a mode
// (UFFDIO_REGISTER of ioctl_userfaultfd(2)).
func UffdRegister(fd int, start, end, mode uint64) error {
	return uffdIoctl(fd, uffdioRegister, unsafe.Pointer(&UffdioRegister{Start: start, Len: end - start, Mode: mode}))
}
