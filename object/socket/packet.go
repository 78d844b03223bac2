package socket

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object/file"
)

// packetDiag is what sock_diag(7) tells of a packet socket.
type packetDiag struct {
	memberships []*dump.PacketMembership
	ring        bool
	fanout      uint32
}

// readPackets lists the packet sockets of the network namespace.
func (d *dumper) readPackets() (map[uint64]*packetDiag, error) {
	if d.packets != nil {
		return d.packets, nil
	}
	request := linux.PacketDiagReq{
		Family: unix.AF_PACKET, Show: linux.PACKET_SHOW_MCLIST | linux.PACKET_SHOW_RING_CFG | linux.PACKET_SHOW_FANOUT,
	}
	packets := make(map[uint64]*packetDiag)
	err := d.ns.Do(func() error {
		return sockDiag(unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request)), func(body []byte) {
			const size = int(unsafe.Sizeof(linux.PacketDiagMsg{}))
			if len(body) < size {
				return
			}
			p := &packetDiag{}
			attributes(body[size:], p.add)
			packets[uint64((*linux.PacketDiagMsg)(unsafe.Pointer(&body[0])).Ino)] = p
		})
	})
	if err != nil {
		return nil, fmt.Errorf("packet sockets: %w", err)
	}
	d.packets = packets
	return packets, nil
}

func (p *packetDiag) add(kind int, value []byte) {
	switch kind {
	case linux.PACKET_DIAG_MCLIST:
		const size = int(unsafe.Sizeof(linux.PacketDiagMembership{}))
		for ; len(value) >= size; value = value[size:] {
			m := (*linux.PacketDiagMembership)(unsafe.Pointer(&value[0]))
			p.memberships = append(p.memberships, &dump.PacketMembership{
				Interface: m.Index, Type: uint32(m.Type), Count: m.Count,
				Address: append([]byte(nil), m.Address[:min(int(m.Len), len(m.Address))]...),
			})
		}
	case linux.PACKET_DIAG_RX_RING, linux.PACKET_DIAG_TX_RING:
		p.ring = true
	case linux.PACKET_DIAG_FANOUT:
		if len(value) >= 4 {
			p.fanout = binary.NativeEndian.Uint32(value)
		}
	}
}

// refusePacket refuses what cannot be made again of a packet socket.
func (d *dumper) refusePacket(l *file.Look) error {
	packets, err := d.readPackets()
	if err != nil {
		return err
	}
	if p := packets[l.Stat.Ino]; p != nil && p.ring {
		return l.At.Refusal("packet socket with a ring", "")
	}
	return nil
}

// packet reads what a packet socket has of its own. What it has heard is lost, as when its buffer is full.
func (d *dumper) packet(l *file.Look, s *dump.Socket) error {
	packets, err := d.readPackets()
	if err != nil {
		return err
	}
	sa, err := unix.Getsockname(l.FD)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	name, ok := sa.(*unix.SockaddrLinklayer)
	if !ok {
		return fmt.Errorf("name of a packet socket: %T", sa)
	}
	s.Protocol = 0
	s.Packet = &dump.Packet{Protocol: uint32(name.Protocol>>8 | name.Protocol<<8), Interface: uint32(name.Ifindex)}
	if diag := packets[l.Stat.Ino]; diag != nil {
		s.Packet.Memberships, s.Packet.Fanout = diag.memberships, diag.fanout
	}
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
	return checkFilter(s.GetFilter())
}

const (
	maxLinkAddress = 8 // mr_address of struct packet_mreq, packet(7)
	maxJoins       = 64
)

// setUpPacket binds a packet socket: from then on it hears packets.
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
	if err := attachFilter(fd, s.GetFilter()); err != nil { // before it hears anything
		return err
	}
	protocol := uint16(p.GetProtocol())
	if p.GetProtocol() != 0 {
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol>>8 | protocol<<8, Ifindex: int(p.GetInterface())}); err != nil {
			return fmt.Errorf("bind to protocol %#x on interface %d: %w", p.GetProtocol(), p.GetInterface(), err)
		}
	}
	if p.GetFanout() != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, int(p.GetFanout())); err != nil {
			return fmt.Errorf("join fanout %#x: %w", p.GetFanout(), err)
		}
	}
	return nil
}
