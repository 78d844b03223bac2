package socket

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
)

// Bind binds a socket to its address, which another one may have too, and which need not be the instance's any more. When all
// are bound, [PutBack] is to follow.
func Bind(fd int, s *dump.Socket) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	if err := setFreebind(fd, s, 1); err != nil {
		return err
	}
	address := Sockaddr(s.GetLocal())
	if s.GetType() == unix.SOCK_RAW {
		address = WithPort(address, 0)
	}
	if err := unix.Bind(fd, address); err != nil {
		return fmt.Errorf("bind to %s port %d: %w", IP(s.GetLocal()), s.GetLocal().GetPort(), err)
	}
	return nil
}

// PutBack puts back the options that [Bind] has changed.
func PutBack(fd int, s *dump.Socket) error {
	if err := setFreebind(fd, s, 0); err != nil {
		return err
	}
	return Reuse(fd, s)
}

// Reuse sets SO_REUSEADDR to what a record says.
func Reuse(fd int, s *dump.Socket) error {
	value := 0
	for _, o := range s.GetOptions() {
		if o.GetLevel() == unix.SOL_SOCKET && o.GetName() == unix.SO_REUSEADDR && len(o.GetValue()) == 4 {
			value = int(binary.NativeEndian.Uint32(o.GetValue()))
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, value); err != nil {
		return fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	return nil
}

// setFreebind says whether a socket may be bound to an address that nobody has.
func setFreebind(fd int, s *dump.Socket, value int) error {
	level, name := unix.IPPROTO_IP, unix.IP_FREEBIND
	if s.GetFamily() == unix.AF_INET6 {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
		return fmt.Errorf("set IP_FREEBIND: %w", err)
	}
	return nil
}

// Unreachable tells whether an error of connect(2) says that there is no way to the peer any more.
func Unreachable(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// Finish gives a socket that is bound and connected the rest of its options, and its filter.
func Finish(fd int, s *dump.Socket) error {
	if err := Apply(fd, s, Middle); err != nil {
		return err
	}
	if err := AttachFilter(fd, s.GetFilter()); err != nil {
		return err
	}
	if err := backToDevice(fd, s); err != nil {
		return err
	}
	return Apply(fd, s, Last)
}

// ReleaseDevice lets a socket hear what comes over any interface, until [Finish].
func ReleaseDevice(fd int) error {
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ""); err != nil {
		return fmt.Errorf("SO_BINDTODEVICE: %w", err)
	}
	return nil
}

func backToDevice(fd int, s *dump.Socket) error {
	for _, o := range s.GetOptions() {
		if o.GetLevel() != unix.SOL_SOCKET || o.GetName() != unix.SO_BINDTODEVICE {
			continue
		}
		if err := linux.Setsockopt(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, o.GetValue()); err != nil {
			return fmt.Errorf("set SO_BINDTODEVICE to %q: %w", o.GetValue(), err)
		}
	}
	return nil
}
