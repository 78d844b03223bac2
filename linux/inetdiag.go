package linux

import "structs"

// InetDiagSockID says which socket: struct inet_diag_sockid of include/uapi/linux/inet_diag.h. Ports and addresses are in the
// order of the network; an IPv4 address is in the first four bytes.
type InetDiagSockID struct {
	_         structs.HostLayout
	SPort     [2]byte
	DPort     [2]byte
	Src       [16]byte
	Dst       [16]byte
	Interface uint32
	Cookie    [2]uint32
}

// InetDiagReq asks for Internet sockets over NETLINK_SOCK_DIAG: struct inet_diag_req_v2 of include/uapi/linux/inet_diag.h.
type InetDiagReq struct {
	_        structs.HostLayout
	Family   uint8
	Protocol uint8
	Ext      uint8 // bit N-1 for attribute N
	Pad      uint8
	States   uint32 // bit mask of TCP_ states
	ID       InetDiagSockID
}

// InetDiagMsg is the answer for one socket; attributes follow it: struct inet_diag_msg of include/uapi/linux/inet_diag.h.
type InetDiagMsg struct {
	_       structs.HostLayout
	Family  uint8
	State   uint8 // TCP_
	Timer   uint8
	Retrans uint8
	ID      InetDiagSockID
	Expires uint32
	RQueue  uint32 // of a listener: connections that wait to be accepted
	WQueue  uint32 // of a listener: its backlog
	UID     uint32
	Ino     uint32 // 0: no descriptor leads to it
}

// Attributes of an InetDiagMsg.
const (
	INET_DIAG_INFO     = 2
	INET_DIAG_SHUTDOWN = 8 // u8: 1 reading, 2 writing
	INET_DIAG_MD5SIG   = 18
	INET_DIAG_ULP_INFO = 19
)

// PacketDiagReq asks for packet sockets over NETLINK_SOCK_DIAG: struct packet_diag_req of include/uapi/linux/packet_diag.h.
type PacketDiagReq struct {
	_        structs.HostLayout
	Family   uint8
	Protocol uint8
	Pad      uint16
	Ino      uint32
	Show     uint32 // PACKET_SHOW_
	Cookie   [2]uint32
}

// PacketDiagMsg is the answer for one socket; attributes follow it: struct packet_diag_msg of include/uapi/linux/packet_diag.h.
type PacketDiagMsg struct {
	_      structs.HostLayout
	Family uint8
	Type   uint8
	Num    uint16 // ETH_P_
	Ino    uint32
	Cookie [2]uint32
}

// PacketDiagMembership is an element of PACKET_DIAG_MCLIST: struct packet_diag_mclist of include/uapi/linux/packet_diag.h.
type PacketDiagMembership struct {
	_       structs.HostLayout
	Index   uint32
	Count   uint32
	Type    uint16 // PACKET_MR_
	Len     uint16
	Address [32]byte
}

// PacketDiagRing is PACKET_DIAG_RX_RING or PACKET_DIAG_TX_RING: struct packet_diag_ring of include/uapi/linux/packet_diag.h. It is
// also struct tpacket_req3 of include/uapi/linux/if_packet.h, whose first four members are struct tpacket_req.
type PacketDiagRing struct {
	_           structs.HostLayout
	BlockSize   uint32
	Blocks      uint32
	FrameSize   uint32
	Frames      uint32
	Timeout     uint32
	PrivateSize uint32
	Features    uint32
}

// What a PacketDiagReq wants to see, and the attributes of a PacketDiagMsg.
const (
	PACKET_SHOW_INFO     = 0x01
	PACKET_SHOW_MCLIST   = 0x02
	PACKET_SHOW_RING_CFG = 0x04
	PACKET_SHOW_FANOUT   = 0x08

	PACKET_DIAG_INFO    = 0 // u32: interface, and more
	PACKET_DIAG_MCLIST  = 1
	PACKET_DIAG_RX_RING = 2
	PACKET_DIAG_TX_RING = 3
	PACKET_DIAG_FANOUT  = 4 // u32: id, and type in the upper half
)
