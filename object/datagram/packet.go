package datagram

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object/file"
	"vps/object/socket"
)

// readPackets lists the packet sockets of the network namespace: all that there is to tell of each.
func (d *dumper) readPackets() (map[uint64]*dump.Packet, error) {
	if d.packets != nil {
		return d.packets, nil
	}
	request := linux.PacketDiagReq{Family: unix.AF_PACKET,
		Show: linux.PACKET_SHOW_INFO | linux.PACKET_SHOW_MCLIST | linux.PACKET_SHOW_RING_CFG | linux.PACKET_SHOW_FANOUT}
	packets := make(map[uint64]*dump.Packet)
	err := d.ns.Do(func() error {
		return socket.SockDiag(unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request)), func(body []byte) {
			const size = int(unsafe.Sizeof(linux.PacketDiagMsg{}))
			if len(body) < size {
				return
			}
			m := (*linux.PacketDiagMsg)(unsafe.Pointer(&body[0]))
			p := &dump.Packet{Protocol: uint32(m.Num)}
			socket.Attributes(body[size:], func(kind int, value []byte) { addAttribute(p, kind, value) })
			packets[uint64(m.Ino)] = p
		})
	})
	if err != nil {
		return nil, fmt.Errorf("packet sockets: %w", err)
	}
	d.packets = packets
	return packets, nil
}

func addAttribute(p *dump.Packet, kind int, value []byte) {
	const size = int(unsafe.Sizeof(linux.PacketDiagMembership{}))
	switch {
	case kind == linux.PACKET_DIAG_INFO && len(value) >= 4:
		p.Interface = binary.NativeEndian.Uint32(value)
	case kind == linux.PACKET_DIAG_FANOUT && len(value) >= 4:
		p.Fanout = binary.NativeEndian.Uint32(value)
	case kind == linux.PACKET_DIAG_RX_RING:
		p.ReceiveRing = ring(value)
	case kind == linux.PACKET_DIAG_TX_RING:
		p.SendRing = ring(value)
	case kind == linux.PACKET_DIAG_MCLIST:
		for ; len(value) >= size; value = value[size:] {
			m := (*linux.PacketDiagMembership)(unsafe.Pointer(&value[0]))
			p.Memberships = append(p.Memberships, &dump.PacketMembership{
				Interface: m.Index, Type: uint32(m.Type), Count: m.Count,
				Address: append([]byte(nil), m.Address[:min(int(m.Len), len(m.Address))]...),
			})
		}
	}
}

func ring(value []byte) *dump.PacketRing {
	if len(value) < int(unsafe.Sizeof(linux.PacketDiagRing{})) {
		return nil
	}
	r := (*linux.PacketDiagRing)(unsafe.Pointer(&value[0]))
	return &dump.PacketRing{
		BlockSize: r.BlockSize, Blocks: r.Blocks, FrameSize: r.FrameSize, Frames: r.Frames,
		Timeout: r.Timeout, PrivateSize: r.PrivateSize, Features: r.Features,
	}
}

// packet notes what a packet socket has of its own. What it has heard is lost, as when its buffer is full.
func (d *dumper) packet(l *file.Look, s *dump.Socket) error {
	packets, err := d.readPackets()
	if err != nil {
		return err
	}
	if s.Packet = packets[l.Stat.Ino]; s.Packet == nil {
		return l.At.Refusal(socket.Name(s), "the kernel does not tell of it (CONFIG_PACKET_DIAG)")
	}
	s.Protocol = 0
	return nil
}

// checkPacket looks at a record of a packet socket.
func checkPacket(s *dump.Socket) error {
	p := s.GetPacket()
	if p == nil || p.GetProtocol() > 0xffff || s.GetLocal() != nil || s.GetPeer() != nil || len(s.GetMemberships()) > 0 || len(s.GetQueue()) > 0 {
		return fmt.Errorf("packet socket of type %d is not valid", s.GetType())
	}
	for _, m := range p.GetMemberships() {
		if len(m.GetAddress()) > maxLinkAddress || m.GetCount() > maxJoins || m.GetType() > 0xffff {
			return fmt.Errorf("packet membership of type %d is not valid", m.GetType())
		}
	}
	for _, r := range []*dump.PacketRing{p.GetReceiveRing(), p.GetSendRing()} {
		if uint64(r.GetBlockSize())*uint64(r.GetBlocks()) > maxRing {
			return fmt.Errorf("packet ring of %d blocks of %d bytes", r.GetBlocks(), r.GetBlockSize())
		}
	}
	return nil
}

const (
	maxLinkAddress = 8 // mr_address of struct packet_mreq, packet(7)
	maxJoins       = 64
	maxRing        = 256 << 20
)

// born is as what a packet socket is made. It hears packets only when it is bound; one of the old kind, which is bound by
// a name, hears them from its birth.
func born(s *dump.Socket) *dump.Socket {
	b := &dump.Socket{Family: s.Family, Type: s.Type, Uid: s.Uid, Gid: s.Gid}
	if s.GetType() == unix.SOCK_PACKET {
		b.Protocol = networkOrder(s.GetPacket().GetProtocol())
	}
	return b
}

func networkOrder(protocol uint32) uint32 {
	return uint32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, uint16(protocol))))
}

// setUpPacket gives a packet socket what it has of its own, and binds it.
func setUpPacket(fd int, s *dump.Socket) error {
	p := s.GetPacket()
	for _, m := range p.GetMemberships() {
		request := unix.PacketMreq{
			Ifindex: int32(m.GetInterface()), Type: uint16(m.GetType()), Alen: uint16(len(m.GetAddress())),
		}
		copy(request.Address[:], m.GetAddress())
		for range m.GetCount() {
			if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &request); err != nil {
				return fmt.Errorf("membership of type %d on interface %d: %w", m.GetType(), m.GetInterface(), err)
			}
		}
	}
	if err := socket.AttachFilter(fd, s.GetFilter()); err != nil { // before it hears anything
		return err
	}
	if err := makeRing(fd, unix.PACKET_RX_RING, p.GetReceiveRing()); err != nil {
		return err
	}
	if err := makeRing(fd, unix.PACKET_TX_RING, p.GetSendRing()); err != nil {
		return err
	}
	if err := bindPacket(fd, s); err != nil {
		return fmt.Errorf("bind to protocol %#x on interface %d: %w", p.GetProtocol(), p.GetInterface(), err)
	}
	if p.GetFanout() != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, int(p.GetFanout())); err != nil {
			return fmt.Errorf("join fanout %#x: %w", p.GetFanout(), err)
		}
	}
	return nil
}

func makeRing(fd, which int, r *dump.PacketRing) error {
	if r.GetBlocks() == 0 {
		return nil
	}
	request := linux.PacketDiagRing{
		BlockSize: r.BlockSize, Blocks: r.Blocks, FrameSize: r.FrameSize, Frames: r.Frames,
		Timeout: r.Timeout, PrivateSize: r.PrivateSize, Features: r.Features,
	}
	value := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	version, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION)
	if err == nil && version != unix.TPACKET_V3 {
		value = value[:unsafe.Offsetof(request.Timeout)]
	}
	if err == nil {
		err = linux.Setsockopt(fd, unix.SOL_PACKET, which, value)
	}
	if err != nil {
		return fmt.Errorf("make a ring of %d blocks of %d bytes: %w", r.GetBlocks(), r.GetBlockSize(), err)
	}
	return nil
}

func bindPacket(fd int, s *dump.Socket) error {
	p := s.GetPacket()
	switch {
	case s.GetType() == unix.SOCK_PACKET && p.GetInterface() != 0:
		name, err := linux.InterfaceName(fd, p.GetInterface())
		if err != nil {
			return err
		}
		return linux.BindPacket(fd, name) // the protocol stays the one that it was made with
	case s.GetType() != unix.SOCK_PACKET && p.GetProtocol() != 0:
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(networkOrder(p.GetProtocol())), Ifindex: int(p.GetInterface())})
	}
	return nil
}
