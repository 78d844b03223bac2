package linux

import "structs"

// SkBuff is a packet as BPF programs see it: struct __sk_buff of include/uapi/linux/bpf.h.
type SkBuff struct {
	_              structs.HostLayout
	Len            uint32
	PktType        uint32
	Mark           uint32
	QueueMapping   uint32
	Protocol       uint32 // ETH_P_*, in network order
	VlanPresent    uint32
	VlanTCI        uint32
	VlanProto      uint32
	Priority       uint32
	IngressIfindex uint32
	Ifindex        uint32
	TCIndex        uint32
	CB             [5]uint32
	Hash           uint32
	TCClassid      uint32
	Data           uint32
	DataEnd        uint32
	NapiID         uint32
	Family         uint32
	RemoteIP4      uint32
	LocalIP4       uint32
	RemoteIP6      [4]uint32
	LocalIP6       [4]uint32
	RemotePort     uint32
	LocalPort      uint32
	DataMeta       uint32
	FlowKeys       uint64
	Tstamp         uint64
	WireLen        uint32
	GSOSegs        uint32
	Sk             uint64
	GSOSize        uint32
	TstampType     uint8
	_              [3]byte
	Hwtstamp       uint64
}

// BPFFibLookup is a question about a route: struct bpf_fib_lookup of include/uapi/linux/bpf.h.
type BPFFibLookup struct {
	_          structs.HostLayout
	Family     uint8
	L4Protocol uint8
	Sport      uint16
	Dport      uint16
	TotLen     uint16
	Ifindex    uint32 // of where the packet has come in
	Flowinfo   uint32
	Src        [4]uint32
	Dst        [4]uint32
	VlanProto  uint16
	VlanTCI    uint16
	Smac       [6]byte
	Dmac       [6]byte
}

// BPF_FIB_LKUP_RET_NO_NEIGH is the answer for a neighbour that is not known yet.
const BPF_FIB_LKUP_RET_NO_NEIGH = 7

// Verdicts of a program at an interface: enum tcx_action_base of include/uapi/linux/bpf.h. Those of cls_bpf have the
// same values.
const (
	TCX_NEXT     = -1
	TCX_PASS     = 0
	TCX_DROP     = 2
	TCX_REDIRECT = 7
)
