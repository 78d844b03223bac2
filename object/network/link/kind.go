package link

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vps/object/network/netlink"
)

// kind is a kind of interface that an instance can make.
type kind struct {
	data  func(attribute uint16) bool // those of IFLA_INFO_DATA that can be set
	port  func(attribute uint16) bool // those of IFLA_INFO_SLAVE_DATA, nil: it has no ports
	check func(data []byte) string    // what cannot be restored
}

var kinds = map[string]kind{
	"":      {data: none}, // lo
	"dummy": {data: none},
	"ifb":   {data: none},
	"tun":   {data: none}, // by an ioctl
	"veth":  {data: none}, // its other end is in the record
	"bridge": {
		data: but(unix.IFLA_BR_MCAST_MLD_VERSION,
			unix.IFLA_BR_VLAN_FILTERING, unix.IFLA_BR_ROOT_ID, unix.IFLA_BR_BRIDGE_ID, unix.IFLA_BR_ROOT_PORT, unix.IFLA_BR_ROOT_PATH_COST,
			unix.IFLA_BR_TOPOLOGY_CHANGE, unix.IFLA_BR_TOPOLOGY_CHANGE_DETECTED, unix.IFLA_BR_HELLO_TIMER,
			unix.IFLA_BR_TCN_TIMER, unix.IFLA_BR_TOPOLOGY_CHANGE_TIMER, unix.IFLA_BR_GC_TIMER, unix.IFLA_BR_FDB_FLUSH, unix.IFLA_BR_PAD),
		port: of(unix.IFLA_BRPORT_PRIORITY, unix.IFLA_BRPORT_COST, unix.IFLA_BRPORT_MODE, unix.IFLA_BRPORT_GUARD, unix.IFLA_BRPORT_PROTECT,
			unix.IFLA_BRPORT_FAST_LEAVE, unix.IFLA_BRPORT_LEARNING, unix.IFLA_BRPORT_UNICAST_FLOOD, unix.IFLA_BRPORT_PROXYARP,
			unix.IFLA_BRPORT_PROXYARP_WIFI, unix.IFLA_BRPORT_MULTICAST_ROUTER, unix.IFLA_BRPORT_MCAST_FLOOD,
			unix.IFLA_BRPORT_MCAST_TO_UCAST, unix.IFLA_BRPORT_VLAN_TUNNEL, unix.IFLA_BRPORT_BCAST_FLOOD, unix.IFLA_BRPORT_GROUP_FWD_MASK,
			unix.IFLA_BRPORT_NEIGH_SUPPRESS, unix.IFLA_BRPORT_ISOLATED, unix.IFLA_BRPORT_LOCKED, unix.IFLA_BRPORT_MAB,
			unix.IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT, unix.IFLA_BRPORT_MCAST_MAX_GROUPS, unix.IFLA_BRPORT_NEIGH_VLAN_SUPPRESS),
		check: func(data []byte) string {
			if v := netlink.Find(data, unix.IFLA_BR_VLAN_FILTERING); len(v) > 0 && v[0] != 0 {
				return "it filters VLANs"
			}
			if v := netlink.Find(data, unix.IFLA_BR_MULTI_BOOLOPT); len(v) >= 4 && binary.NativeEndian.Uint32(v) != 0 { // struct br_boolopt_multi
				return fmt.Sprintf("it has further options (%#x)", binary.NativeEndian.Uint32(v))
			}
			return ""
		},
	},
	"vlan": {data: of(unix.IFLA_VLAN_ID, unix.IFLA_VLAN_FLAGS, unix.IFLA_VLAN_EGRESS_QOS, unix.IFLA_VLAN_INGRESS_QOS, unix.IFLA_VLAN_PROTOCOL)},
	"macvlan": {
		data: of(unix.IFLA_MACVLAN_MODE, unix.IFLA_MACVLAN_FLAGS, unix.IFLA_MACVLAN_BC_QUEUE_LEN, unix.IFLA_MACVLAN_BC_CUTOFF),
		check: func(data []byte) string {
			if v := netlink.Find(data, unix.IFLA_MACVLAN_MACADDR_COUNT); len(v) > 0 && slices.Max(v) > 0 {
				return "it has source addresses"
			}
			return ""
		},
	},
	"ipvlan": {data: of(unix.IFLA_IPVLAN_MODE, unix.IFLA_IPVLAN_FLAGS)},
	"vrf":    {data: of(unix.IFLA_VRF_TABLE), port: none},
}

func none(uint16) bool { return false }

func of(list ...uint16) func(uint16) bool {
	return func(a uint16) bool { return slices.Contains(list, a) }
}

// but accepts the attributes up to the last known one, without some.
func but(last uint16, list ...uint16) func(uint16) bool {
	return func(a uint16) bool { return a <= last && !slices.Contains(list, a) }
}
