package linux

import "structs"

// What golang.org/x/sys lacks of include/uapi/linux/netfilter/nf_tables.h.
const (
	NFT_TABLE_F_OWNER    = 0x2
	NFTA_TABLE_USERDATA  = 6
	NFT_CHAIN_BINDING    = 1 << 2
	NFTA_CHAIN_FLAGS     = 10
	NFTA_CHAIN_USERDATA  = 12
	NFTA_SET_EXPR        = 17
	NFTA_SET_EXPRESSIONS = 18
	NFTA_OBJ_USERDATA    = 8
	NFTA_FLOWTABLE_TABLE = 1
	NFTA_FLOWTABLE_NAME  = 2
	NFTA_FLOWTABLE_HOOK  = 3
	NFTA_FLOWTABLE_FLAGS = 7
)

// Messages and attributes of conntrack, include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	IPCTNL_MSG_CT_NEW                = 0
	IPCTNL_MSG_CT_GET                = 1
	CTA_TUPLE_ORIG                   = 1
	CTA_TUPLE_REPLY                  = 2
	CTA_STATUS                       = 3
	CTA_PROTOINFO                    = 4
	CTA_HELP                         = 5
	CTA_NAT_SRC                      = 6
	CTA_TIMEOUT                      = 7
	CTA_MARK                         = 8
	CTA_NAT_DST                      = 13
	CTA_SEQ_ADJ_ORIG                 = 15
	CTA_SEQ_ADJ_REPLY                = 16
	CTA_ZONE                         = 18
	CTA_LABELS                       = 22
	CTA_SYNPROXY                     = 24
	CTA_TUPLE_IP                     = 1
	CTA_TUPLE_PROTO                  = 2
	CTA_TUPLE_ZONE                   = 3
	CTA_IP_V4_SRC                    = 1
	CTA_IP_V4_DST                    = 2
	CTA_IP_V6_SRC                    = 3
	CTA_IP_V6_DST                    = 4
	CTA_PROTO_NUM                    = 1
	CTA_PROTO_SRC_PORT               = 2
	CTA_PROTO_DST_PORT               = 3
	CTA_PROTO_ICMP_ID                = 4
	CTA_PROTO_ICMPV6_ID              = 7
	CTA_NAT_V4_MINIP                 = 1
	CTA_NAT_V4_MAXIP                 = 2
	CTA_NAT_PROTO                    = 3
	CTA_NAT_V6_MINIP                 = 4
	CTA_NAT_V6_MAXIP                 = 5
	CTA_PROTONAT_PORT_MIN            = 1
	CTA_PROTONAT_PORT_MAX            = 2
	CTA_PROTOINFO_TCP                = 1
	CTA_PROTOINFO_TCP_FLAGS_ORIGINAL = 4
	CTA_PROTOINFO_TCP_FLAGS_REPLY    = 5
)

// Bits of CTA_STATUS, include/uapi/linux/netfilter/nf_conntrack_common.h.
const (
	IPS_EXPECTED   = 1 << 0
	IPS_CONFIRMED  = 1 << 3
	IPS_SRC_NAT    = 1 << 4
	IPS_DST_NAT    = 1 << 5
	IPS_OFFLOAD    = 1 << 14
	IPS_HW_OFFLOAD = 1 << 16
)

// A bit of CTA_PROTOINFO_TCP_FLAGS_, include/uapi/linux/netfilter/nf_conntrack_tcp.h: no window is checked.
const (
	IP_CT_TCP_FLAG_BE_LIBERAL = 0x08
)

// Socket options of iptables, include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h, and of arptables,
// include/uapi/linux/netfilter_arp/arp_tables.h.
const (
	IPT_SO_SET_REPLACE      = 64
	IPT_SO_SET_ADD_COUNTERS = 65
	IPT_SO_GET_INFO         = 64
	IPT_SO_GET_ENTRIES      = 65
	ARPT_SO_GET_INFO        = 96
)

// XT_TABLE_MAXNAMELEN is what a table's name takes, include/uapi/linux/netfilter/x_tables.h.
const XT_TABLE_MAXNAMELEN = 32

// XtGetinfo is struct ipt_getinfo and struct ip6t_getinfo.
type XtGetinfo struct {
	_          structs.HostLayout
	Name       [XT_TABLE_MAXNAMELEN]byte
	ValidHooks uint32
	HookEntry  [5]uint32
	Underflow  [5]uint32
	NumEntries uint32
	Size       uint32
}

// XtReplace is struct ipt_replace and struct ip6t_replace, without the entries that follow. Counters is an address.
type XtReplace struct {
	_           structs.HostLayout
	Name        [XT_TABLE_MAXNAMELEN]byte
	ValidHooks  uint32
	NumEntries  uint32
	Size        uint32
	HookEntry   [5]uint32
	Underflow   [5]uint32
	NumCounters uint32
	Counters    uint64
}

// XtCounters is struct xt_counters.
type XtCounters struct {
	_              structs.HostLayout
	Packets, Bytes uint64
}
