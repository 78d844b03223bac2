package linux

import "structs"

// What golang.org/x/sys lacks for rtnetlink(7).
const (
	RTEXT_FILTER_SKIP_STATS = 1 << 3 // include/uapi/linux/rtnetlink.h: the answer has no counters
	VETH_INFO_PEER          = 1      // include/uapi/linux/veth.h
	IF_OPER_UP              = 6      // include/uapi/linux/if.h (RFC 2863)
	IN6_ADDR_GEN_MODE_NONE  = 1      // include/uapi/linux/if_link.h: the kernel makes no address by itself
)

// IfaCacheinfo is struct ifa_cacheinfo of include/uapi/linux/if_addr.h: lifetimes in seconds, times in hundredths of one.
type IfaCacheinfo struct {
	_        structs.HostLayout
	Prefered uint32
	Valid    uint32
	Created  uint32
	Updated  uint32
}

// Attributes of addresses, include/uapi/linux/if_addr.h.
const IFA_PROTO = 11

// Ndmsg is struct ndmsg of include/uapi/linux/neighbour.h.
type Ndmsg struct {
	_       structs.HostLayout
	Family  uint8
	_       [3]byte
	Ifindex int32
	State   uint16
	Flags   uint8
	Type    uint8
}

// Attributes and flags of neighbours, include/uapi/linux/neighbour.h.
const (
	NDA_PROTOCOL  = 12
	NDA_NH_ID     = 13
	NDA_FLAGS_EXT = 15
	NTF_STICKY    = 0x40
)

// RtaCacheinfo is struct rta_cacheinfo of include/uapi/linux/rtnetlink.h; Expires is in hundredths of a second.
type RtaCacheinfo struct {
	_       structs.HostLayout
	Clntref uint32
	Lastuse uint32
	Expires int32
	Error   uint32
	Used    uint32
	ID      uint32
	Ts      uint32
	Tsage   uint32
}

// RTA_NH_ID of include/uapi/linux/rtnetlink.h: the route's nexthop object.
const RTA_NH_ID = 30

// Nhmsg is struct nhmsg of include/uapi/linux/nexthop.h.
type Nhmsg struct {
	_        structs.HostLayout
	Family   uint8
	Scope    uint8
	Protocol uint8
	_        uint8
	Flags    uint32
}

// Attributes of nexthop objects, include/uapi/linux/nexthop.h.
const (
	NHA_FDB             = 11
	NHA_OP_FLAGS        = 14
	NHA_GROUP_STATS     = 15
	NHA_HW_STATS_ENABLE = 16
	NHA_HW_STATS_USED   = 17
)

// Nfgenmsg is struct nfgenmsg of include/uapi/linux/netfilter/nfnetlink.h. ResID is in network order.
type Nfgenmsg struct {
	_       structs.HostLayout
	Family  uint8
	Version uint8
	ResID   uint16
}

// Tcmsg is struct tcmsg of include/uapi/linux/rtnetlink.h.
type Tcmsg struct {
	_       structs.HostLayout
	Family  uint8
	_       [3]byte
	Ifindex int32
	Handle  uint32
	Parent  uint32
	Info    uint32
}

// Handles and attributes of traffic control, include/uapi/linux/pkt_sched.h.
const (
	TC_H_ROOT        = 0xffffffff
	TC_H_MIN_INGRESS = 0xfffffff2 // of clsact and ingress
	TC_H_MIN_EGRESS  = 0xfffffff3
	TCA_HTB_INIT     = 2
)
