package socket

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
)

// addressOf returns a record of an address; nil for that of a socket that is not bound.
func Address(sa unix.Sockaddr) *dump.SocketAddress {
	a := &dump.SocketAddress{}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		a.Address, a.Port = sa.Addr[:], uint32(sa.Port)
	case *unix.SockaddrInet6:
		a.Address, a.Port, a.Interface = sa.Addr[:], uint32(sa.Port), sa.ZoneId
	default:
		return nil
	}
	if ip, _ := netip.AddrFromSlice(a.Address); a.Port == 0 && ip.IsUnspecified() {
		return nil
	}
	return a
}

// Sockaddr returns the address of a record, which has been checked.
func Sockaddr(a *dump.SocketAddress) unix.Sockaddr {
	if len(a.GetAddress()) == 4 {
		return &unix.SockaddrInet4{Port: int(a.GetPort()), Addr: [4]byte(a.GetAddress())}
	}
	return &unix.SockaddrInet6{Port: int(a.GetPort()), ZoneId: a.GetInterface(), Addr: [16]byte(a.GetAddress())}
}

// Local returns the address that a socket is bound to, nil for none.
func Local(fd int) (*dump.SocketAddress, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	return Address(sa), nil
}

// Peer returns the address that a socket is connected to, nil for none.
func Peer(fd int) (*dump.SocketAddress, error) {
	sa, err := unix.Getpeername(fd)
	if err == unix.ENOTCONN {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("getpeername: %w", err)
	}
	return Address(sa), nil
}

// LastPeer returns the address that a socket was connected to last, nil for none.
func LastPeer(fd int, family uint32) (*dump.SocketAddress, error) {
	sa := make([]byte, unix.SizeofSockaddrInet4)
	if family == unix.AF_INET6 {
		sa = make([]byte, unix.SizeofSockaddrInet6)
	}
	_, err := linux.Getsockopt(fd, unix.SOL_SOCKET, unix.SO_PEERNAME, sa)
	switch {
	case err == unix.ENOTCONN:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("SO_PEERNAME: %w", err)
	case family == unix.AF_INET:
		return &dump.SocketAddress{Address: sa[4:8], Port: uint32(binary.BigEndian.Uint16(sa[2:]))}, nil
	}
	return &dump.SocketAddress{
		Address: sa[8:24], Port: uint32(binary.BigEndian.Uint16(sa[2:])), Interface: binary.NativeEndian.Uint32(sa[24:]),
	}, nil
}

// checkAddress refuses an address of another family.
func CheckAddress(family uint32, a *dump.SocketAddress) error {
	size := 4
	if family == unix.AF_INET6 {
		size = 16
	}
	if a != nil && (len(a.GetAddress()) != size || a.GetPort() > 0xffff) {
		return fmt.Errorf("address %v of family %d", a, family)
	}
	return nil
}

// IP returns the address of a record, an IPv4 one as such.
func IP(a *dump.SocketAddress) netip.Addr {
	ip, _ := netip.AddrFromSlice(a.GetAddress())
	return ip.Unmap()
}

// WithPort is an address with another port.
func WithPort(sa unix.Sockaddr, port int) unix.Sockaddr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &unix.SockaddrInet4{Addr: sa.Addr, Port: port}
	case *unix.SockaddrInet6:
		return &unix.SockaddrInet6{Addr: sa.Addr, ZoneId: sa.ZoneId, Port: port}
	}
	return sa
}
