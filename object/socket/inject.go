package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Injector sends packets in the name of anybody to addresses of a network namespace: they come over its loopback interface.
type Injector struct{ v4, v6 int }

// NewInjectorHere makes an injector of the network namespace of the calling thread. The caller closes it.
func NewInjectorHere() (*Injector, error) {
	in := &Injector{-1, -1}
	var err error
	in.v4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	in.v6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err == nil {
		err = unix.SetsockoptInt(in.v6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1)
	} else if err == unix.EAFNOSUPPORT {
		return in, nil // a kernel without IPv6
	}
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	return in, nil
}

// NewInjector makes an injector of a network namespace. The caller closes it.
func NewInjector(n *Namespace) (in *Injector, err error) {
	err = n.Do(func() error {
		in, err = NewInjectorHere()
		return err
	})
	return in, err
}

// Close frees the injector.
func (in *Injector) Close() {
	for _, fd := range []int{in.v4, in.v6} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Mark sets the mark of what is sent from now on (SO_MARK of socket(7)).
func (in *Injector) Mark(mark int) error {
	for _, fd := range []int{in.v4, in.v6} {
		if fd < 0 {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return fmt.Errorf("set SO_MARK: %w", err)
		}
	}
	return nil
}

// Packet is an IP packet.
type Packet struct {
	From, To   netip.Addr // of one family
	Hops       uint8      // 0: 64
	Class      uint8
	Protocol   uint8
	Payload    []byte
	ChecksumAt int // where in the payload its checksum belongs; 0: nowhere
}

// Send sends a packet, whose checksum it fills in.
func (in *Injector) Send(p Packet) error {
	if p.Hops == 0 {
		p.Hops = 64
	}
	if p.From.Is4() != p.To.Is4() {
		return errors.New("a packet from one family of addresses to another")
	}
	p.fillChecksum()
	if p.To.Is4() {
		return in.send(in.v4, p.header4(), p.Payload, &unix.SockaddrInet4{Addr: p.To.As4()})
	}
	return in.send(in.v6, p.header6(), p.Payload, &unix.SockaddrInet6{Addr: p.To.As16()})
}

func (in *Injector) send(fd int, header, payload []byte, to unix.Sockaddr) error {
	if fd < 0 {
		return fmt.Errorf("send a packet: %w", unix.EAFNOSUPPORT)
	}
	if err := unix.Sendto(fd, append(header, payload...), 0, to); err != nil {
		return fmt.Errorf("send a packet of %d bytes: %w", len(header)+len(payload), err)
	}
	return nil
}

// header4 is that of RFC 791; the kernel fills in length, identification and checksum (raw(7)).
func (p *Packet) header4() []byte {
	h := make([]byte, 20, 20+len(p.Payload))
	h[0], h[1], h[8], h[9] = 4<<4|5, p.Class, p.Hops, p.Protocol
	from, to := p.From.As4(), p.To.As4()
	copy(h[12:], from[:])
	copy(h[16:], to[:])
	return h
}

// header6 is that of RFC 8200.
func (p *Packet) header6() []byte {
	h := make([]byte, 40, 40+len(p.Payload))
	binary.BigEndian.PutUint32(h, 6<<28|uint32(p.Class)<<20)
	binary.BigEndian.PutUint16(h[4:], uint16(len(p.Payload)))
	h[6], h[7] = p.Protocol, p.Hops
	from, to := p.From.As16(), p.To.As16()
	copy(h[8:], from[:])
	copy(h[24:], to[:])
	return h
}

// fillChecksum computes the checksum of RFC 1071, over the pseudo header of RFC 768 or RFC 8200 too; that of ICMP has none.
func (p *Packet) fillChecksum() {
	if p.ChecksumAt == 0 {
		return
	}
	p.Payload[p.ChecksumAt], p.Payload[p.ChecksumAt+1] = 0, 0
	sum := uint32(0)
	if p.Protocol != unix.IPPROTO_ICMP {
		sum = addWords(addWords(0, p.From.AsSlice()), p.To.AsSlice()) + uint32(p.Protocol) + uint32(len(p.Payload))
	}
	sum = addWords(sum, p.Payload)
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	check := ^uint16(sum)
	if check == 0 && p.Protocol != unix.IPPROTO_ICMP {
		check = 0xffff // 0 is no checksum
	}
	binary.BigEndian.PutUint16(p.Payload[p.ChecksumAt:], check)
}

func addWords(sum uint32, data []byte) uint32 {
	for ; len(data) >= 2; data = data[2:] {
		sum += uint32(binary.BigEndian.Uint16(data))
	}
	if len(data) == 1 {
		sum += uint32(data[0]) << 8
	}
	return sum
}
