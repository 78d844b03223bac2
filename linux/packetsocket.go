package linux

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InterfaceName returns the name of an interface in the network namespace of a socket, by its index: SIOCGIFNAME, netdevice(7).
func InterfaceName(fd int, index uint32) (string, error) {
	var request [40]byte // struct ifreq
	binary.NativeEndian.PutUint32(request[unix.IFNAMSIZ:], index)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return "", errno
	}
	return unix.ByteSliceToString(request[:unix.IFNAMSIZ]), nil
}

// BindPacket binds a socket of type SOCK_PACKET to an interface: struct sockaddr_pkt, include/uapi/linux/if_packet.h.
func BindPacket(fd int, name string) error {
	var address [16]byte // what follows the name is not looked at
	binary.NativeEndian.PutUint16(address[:], unix.AF_PACKET)
	copy(address[2:16], name)
	if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&address)), uintptr(len(address))); errno != 0 {
		return errno
	}
	return nil
}
