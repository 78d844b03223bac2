package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Getsockopt reads an option into buf and returns how much of it the kernel has filled, see getsockopt(2).
func Getsockopt(fd, level, name int, buf []byte) (int, error) {
	n := uint32(len(buf))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Setsockopt sets an option, see setsockopt(2).
func Setsockopt(fd, level, name int, value []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Socket options that golang.org/x/sys/unix lacks.
const (
	IPV6_FLOWINFO      = 11 // include/uapi/linux/in6.h
	IPV6_FLOWINFO_SEND = 33
	UDPLITE_SEND_CSCOV = 10 // include/net/udplite.h
	UDPLITE_RECV_CSCOV = 11
	TCP_AO_INFO        = 40 // include/uapi/linux/tcp.h
)

// Disconnect ends the connection of a datagram socket, or any state of a stream socket, by connect(2) with AF_UNSPEC.
func Disconnect(fd int) error {
	var unspecified [16]byte
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), uintptr(len(unspecified)))
	if errno != 0 {
		return errno
	}
	return nil
}
