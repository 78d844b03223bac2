package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
)

// Diag is what sock_diag(7) tells of an Internet socket.
type Diag struct {
	linux.InetDiagMsg
	Shutdown uint32
	MD5      bool // it has keys for signatures (RFC 2385)
}

// ReadDiag lists the sockets of a protocol in the network namespace of the calling thread. info asks for more, which takes
// longer: [Diag.MD5] is known then.
func ReadDiag(family, protocol uint8, info bool) ([]Diag, error) {
	request := linux.InetDiagReq{Family: family, Protocol: protocol, States: ^uint32(0)}
	if info {
		request.Ext = 1 << (linux.INET_DIAG_INFO - 1)
	}
	var list []Diag
	err := SockDiag(unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request)), func(body []byte) {
		var d Diag
		if len(body) < int(unsafe.Sizeof(d.InetDiagMsg)) {
			return
		}
		d.InetDiagMsg = *(*linux.InetDiagMsg)(unsafe.Pointer(&body[0]))
		Attributes(body[unsafe.Sizeof(d.InetDiagMsg):], func(kind int, value []byte) {
			switch {
			case kind == linux.INET_DIAG_SHUTDOWN && len(value) > 0:
				d.Shutdown = uint32(value[0])
			case kind == linux.INET_DIAG_MD5SIG:
				d.MD5 = true
			}
		})
		list = append(list, d)
	})
	return list, err
}

// sockDiag sends a request of sock_diag(7) for many sockets, in the network namespace of the calling thread, and gives the
// answers to each.
func SockDiag(request []byte, each func(body []byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	defer unix.Close(fd)
	head := unix.NlMsghdr{
		Len: uint32(unix.SizeofNlMsghdr + len(request)), Type: unix.SOCK_DIAG_BY_FAMILY, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP,
	}
	message := append((*[unix.SizeofNlMsghdr]byte)(unsafe.Pointer(&head))[:], request...)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sock_diag request: %w", err)
	}
	buf := make([]byte, 256<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("sock_diag answer: %w", err)
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			h := (*unix.NlMsghdr)(unsafe.Pointer(&rest[0]))
			if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(rest) {
				return fmt.Errorf("sock_diag answer of %d bytes", h.Len)
			}
			body := rest[unix.SizeofNlMsghdr:h.Len]
			switch {
			case h.Type == unix.NLMSG_DONE:
				return nil
			case h.Type == unix.NLMSG_ERROR && len(body) >= 4:
				errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
				if errors.Is(errno, unix.ENOENT) {
					return nil // the kernel does not have the protocol
				}
				return fmt.Errorf("sock_diag: %w", errno)
			case h.Type == unix.SOCK_DIAG_BY_FAMILY:
				each(body)
			}
			rest = rest[min(len(rest), int(h.Len+3)&^3):]
		}
	}
}

// attributes walks over netlink attributes (netlink(7)).
func Attributes(data []byte, each func(kind int, value []byte)) {
	for len(data) >= 4 {
		length, kind := int(binary.NativeEndian.Uint16(data)), binary.NativeEndian.Uint16(data[2:])
		if length < 4 || length > len(data) {
			return
		}
		each(int(kind), data[4:length])
		data = data[min(len(data), (length+3)&^3):]
	}
}

// Local is the address that a socket is bound to.
func (d *Diag) Local() *dump.SocketAddress { return d.address(&d.ID.Src, d.ID.SPort) }

// Peer is the address that a socket is connected to, or tries to be.
func (d *Diag) Peer() *dump.SocketAddress { return d.address(&d.ID.Dst, d.ID.DPort) }

func (d *Diag) address(ip *[16]byte, port [2]byte) *dump.SocketAddress {
	a := &dump.SocketAddress{Address: ip[:4], Port: uint32(binary.BigEndian.Uint16(port[:]))}
	if d.Family == unix.AF_INET6 {
		a.Address, a.Interface = ip[:], d.ID.Interface
	}
	return a
}
