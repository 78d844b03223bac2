package tcp

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/socket"
)

// Flags of a segment (RFC 9293, section 3.1).
const (
	flagFin = 1
	flagRst = 4
	flagAck = 16
	flagUrg = 32
)

// segment is a TCP segment without options.
type segment struct {
	from, to *dump.SocketAddress
	seq, ack uint32
	flags    byte
	window   uint16
	urgent   uint16
	data     []byte
}

func (s segment) packet() socket.Packet {
	const words, checksumAt = 5, 16
	h := binary.BigEndian.AppendUint16(nil, uint16(s.from.GetPort()))
	h = binary.BigEndian.AppendUint16(h, uint16(s.to.GetPort()))
	h = binary.BigEndian.AppendUint32(h, s.seq)
	h = binary.BigEndian.AppendUint32(h, s.ack)
	h = append(h, words<<4, s.flags)
	h = binary.BigEndian.AppendUint16(h, s.window)
	h = binary.BigEndian.AppendUint16(h, 0)
	h = binary.BigEndian.AppendUint16(h, s.urgent)
	return socket.Packet{
		From: socket.IP(s.from), To: socket.IP(s.to), Protocol: unix.IPPROTO_TCP,
		Payload: append(h, s.data...), ChecksumAt: checksumAt,
	}
}

// fromPeer is what the peer of a connection would say next. at is how far into the receive queue it says so.
func fromPeer(s *dump.Socket, at int, flags byte, data []byte) segment {
	t := s.GetTcp()
	return segment{
		from: s.GetPeer(), to: s.GetLocal(), flags: flags | flagAck, data: data,
		seq:    t.GetReceiveSeq() - uint32(len(t.GetReceived())) + uint32(at),
		ack:    t.GetSendSeq() - uint32(len(t.GetSent())+len(t.GetUnsent())),
		window: uint16(min(t.GetWindow().GetSend()>>t.GetSendScale(), 0xffff)),
	}
}
