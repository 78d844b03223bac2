package datagram

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object/file"
	"vps/object/socket"
)

// maxDatagram is more than a datagram can hold.
const maxDatagram = 64 << 10

// readQueue reads what a socket has received and nobody has read, and leaves it there.
func readQueue(fd int, s *dump.Socket) (queue []*dump.Datagram, err error) {
	if file.Poll(fd, unix.POLLIN)&unix.POLLIN == 0 {
		return nil, nil
	}
	back, err := tellAll(fd, s.GetFamily())
	defer func() {
		if berr := back(); err == nil {
			err = berr
		}
	}()
	if err != nil {
		return nil, err
	}
	buf, control := make([]byte, maxDatagram), make([]byte, 1024)
	for {
		n, controlSize, _, from, err := unix.Recvmsg(fd, buf, control, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return queue, nil
		case err == unix.ECONNREFUSED || err == unix.EHOSTUNREACH || err == unix.ENETUNREACH:
			continue // an error that was due; it is told once
		case err != nil:
			return nil, fmt.Errorf("peek at datagram %d: %w", len(queue), err)
		case n == 0 && from == nil: // reading has ended
			return queue, nil
		}
		d := &dump.Datagram{Data: append([]byte(nil), buf[:n]...), From: socket.Address(from)}
		if err := addDelivery(d, control[:controlSize]); err != nil {
			return nil, err
		}
		queue = append(queue, d)
	}
}

// tellAll has a socket tell where its datagrams were sent to, and peek at them one after the other. What it returns puts that back,
// even after an error.
func tellAll(fd int, family uint32) (back func() error, err error) {
	wanted := []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1}, {unix.IPPROTO_IP, unix.IP_RECVTTL, 1}, {unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
	}
	if family == unix.AF_INET6 {
		wanted = append(wanted, []struct{ level, name, value int }{
			{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1},
		}...)
	}
	var undo []func() error
	back = func() (first error) {
		for _, f := range undo {
			if err := f(); err != nil && first == nil {
				first = fmt.Errorf("put back how a socket tells of datagrams: %w", err)
			}
		}
		return first
	}
	for _, w := range wanted {
		old, err := unix.GetsockoptInt(fd, w.level, w.name)
		if err != nil {
			if w.name == unix.SO_PEEK_OFF {
				return back, fmt.Errorf("SO_PEEK_OFF: %w", err)
			}
			continue // not this kind of socket
		}
		undo = append(undo, func() error { return unix.SetsockoptInt(fd, w.level, w.name, old) })
		if err := unix.SetsockoptInt(fd, w.level, w.name, w.value); err != nil {
			return back, fmt.Errorf("have a socket tell of datagrams: %w", err)
		}
	}
	return back, nil
}

// addDelivery notes what control messages tell of a datagram's way.
func addDelivery(d *dump.Datagram, control []byte) error {
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	number := func(data []byte) uint32 {
		if len(data) < 4 {
			return uint32(append(data, 0)[0])
		}
		return binary.NativeEndian.Uint32(data)
	}
	for _, m := range list {
		switch [2]int32{m.Header.Level, m.Header.Type} {
		case [2]int32{unix.IPPROTO_IP, unix.IP_PKTINFO}: // struct in_pktinfo, ip(7): index, local address, destination
			if len(m.Data) >= 12 {
				d.To = append([]byte(nil), m.Data[8:12]...)
			}
		case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}: // struct in6_pktinfo, ipv6(7): destination, index
			if len(m.Data) >= 16 && d.To == nil {
				d.To = append([]byte(nil), m.Data[:16]...)
			}
		case [2]int32{unix.IPPROTO_IP, unix.IP_TTL}, [2]int32{unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT}:
			d.Hops = number(m.Data)
		case [2]int32{unix.IPPROTO_IP, unix.IP_TOS}, [2]int32{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:
			d.TrafficClass = number(m.Data)
		}
	}
	return nil
}

// postman delivers datagrams to sockets in the instance's network namespace.
type postman struct {
	inject *socket.Injector
	local  map[netip.Addr]bool // addresses of the instance
}

func newPostman(n *socket.Namespace) (*postman, error) {
	local, err := n.Addresses()
	if err != nil {
		return nil, err
	}
	inject, err := socket.NewInjector(n)
	return &postman{inject, local}, err
}

func (p *postman) close() { p.inject.Close() }

// fill delivers the datagrams of a queue to a socket that is not bound yet, and leaves it so. Meanwhile the socket has a port
// that nobody else has.
func (p *postman) fill(fd int, s *dump.Socket) error {
	if err := socket.SetBuffer(fd, unix.SO_RCVBUF, socket.MaxBuffer); err != nil {
		return err
	}
	echo := s.GetProtocol() == unix.IPPROTO_ICMP || s.GetProtocol() == unix.IPPROTO_ICMPV6
	var anywhere unix.Sockaddr = &unix.SockaddrInet4{}
	if s.GetFamily() == unix.AF_INET6 {
		anywhere = &unix.SockaddrInet6{}
	}
	if echo && s.GetLocal() != nil { // its number is in what it receives
		anywhere = socket.WithPort(anywhere, int(s.GetLocal().GetPort()))
	}
	if err := unix.Bind(fd, anywhere); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	here, err := socket.Local(fd)
	if err != nil {
		return err
	}
	for i, d := range s.GetQueue() {
		before, err := received(fd)
		if err != nil {
			return err
		}
		if err := p.inject.Send(p.packet(d, s, uint16(here.GetPort()))); err != nil {
			return fmt.Errorf("datagram %d: %w", i, err)
		}
		if err := arrived(fd, before); err != nil {
			return fmt.Errorf("datagram %d: %w", i, err)
		}
	}
	if err := linux.Disconnect(fd); err != nil {
		return fmt.Errorf("unbind: %w", err)
	}
	return nil
}

// packet is a datagram on its way to a port of the instance.
func (p *postman) packet(d *dump.Datagram, s *dump.Socket, port uint16) socket.Packet {
	from := socket.IP(d.GetFrom())
	to, _ := netip.AddrFromSlice(d.GetTo())
	if to = to.Unmap(); !p.local[to] && !to.IsLoopback() || to.Is4() != from.Is4() { // multicast
		to = netip.IPv6Loopback()
		if from.Is4() {
			to = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	packet := socket.Packet{From: from, To: to, Hops: uint8(d.GetHops()), Class: uint8(d.GetTrafficClass()), Protocol: uint8(s.GetProtocol())}
	switch s.GetProtocol() {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		packet.Payload = append([]byte(nil), d.GetData()...)
		packet.ChecksumAt = 2
	default:
		size := len(d.GetData()) + 8
		header := binary.BigEndian.AppendUint16(nil, uint16(d.GetFrom().GetPort()))
		header = binary.BigEndian.AppendUint16(header, port)
		header = binary.BigEndian.AppendUint16(header, uint16(size)) // UDP-Lite: the checksum covers all
		packet.Payload = append(append(header, 0, 0), d.GetData()...)
		packet.ChecksumAt = 6
	}
	return packet
}

// received tells how much memory a socket's queue takes: SO_MEMINFO, SK_MEMINFO_RMEM_ALLOC of include/uapi/linux/sock_diag.h.
func received(fd int) (uint32, error) {
	var info [36]byte
	if _, err := linux.Getsockopt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, info[:]); err != nil {
		return 0, fmt.Errorf("SO_MEMINFO: %w", err)
	}
	return binary.NativeEndian.Uint32(info[:]), nil
}

// arrivalTime is how long a packet may be on its way over the loopback interface.
const arrivalTime = time.Second

// arrived waits until a socket's queue has grown.
func arrived(fd int, before uint32) error {
	for end := time.Now().Add(arrivalTime); ; time.Sleep(100 * time.Microsecond) {
		now, err := received(fd)
		if err != nil || now > before {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("it did not arrive: %w", unix.ETIMEDOUT)
		}
	}
}

// checkQueue looks at everything in a queue that is used later.
func checkQueue(s *dump.Socket) error {
	if s.GetType() != unix.SOCK_DGRAM && len(s.GetQueue()) > 0 {
		return fmt.Errorf("a %s with a queue", socket.Name(s))
	}
	for i, d := range s.GetQueue() {
		from, to := d.GetFrom(), len(d.GetTo())
		if from == nil || len(d.GetData()) > maxDatagram-48 || d.GetHops() > 0xff || d.GetTrafficClass() > 0xff || to != 0 && to != 4 && to != 16 {
			return fmt.Errorf("datagram %d is not valid", i)
		}
		if err := socket.CheckAddress(s.GetFamily(), from); err != nil {
			return fmt.Errorf("datagram %d: %w", i, err)
		}
	}
	return nil
}
