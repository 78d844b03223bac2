package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Features of userfaultfd(2), UFFD_FEATURE_* of include/uapi/linux/userfaultfd.h.
const (
	UFFD_FEATURE_WP_ASYNC = 1 << 15 // Linux 6.7
)

// UffdioAPI is struct uffdio_api of include/uapi/linux/userfaultfd.h.
type UffdioAPI struct {
	_        structs.HostLayout
	API      uint64
	Features uint64
	Ioctls   uint64
}

const (
	uffdAPI       = 0xaa       // UFFD_API
	uffdioAPI     = 0xc018aa3f // UFFDIO_API: _IOWR(0xaa, 0x3f, struct uffdio_api)
	uffdUserFault = 1          // UFFD_USER_MODE_ONLY
)

// UserfaultfdFeatures returns the features that the kernel offers, UFFDIO_API of ioctl_userfaultfd(2).
func UserfaultfdFeatures() (uint64, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserFault, 0, 0)
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
