package network

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
)

// A snapshot may say anything of a network.
func TestCheck(t *testing.T) {
	good := &dump.Network{
		Id: 7,
		Interfaces: []*dump.Interface{
			{Index: 1, Name: "lo"}, {Index: 2, Name: "east", Kind: "veth", Link: 3}, {Index: 3, Name: "west", Kind: "veth", Link: 2},
		},
		Addresses: []*dump.InterfaceAddress{{Interface: 2, Local: []byte{10, 0, 0, 1}, Prefix: 8}},
		Routes:    []*dump.Route{{Family: unix.AF_INET, Destination: []byte{10, 0, 0, 0}, Prefix: 8}},
		Rules:     []*dump.RoutingRule{{Family: unix.AF_INET6, Priority: 5}},
	}
	filters := &dump.Firewall{Id: 7}
	for name, change := range map[string]func(){
		"":                                  func() {},
		"there are two":                     func() { good.Interfaces[1].Name = "west" },
		"3 is not its other end":            func() { good.Interfaces[2].Link = 3 },
		"there is no interface 9":           func() { good.Interfaces[1].Link = 9 },
		`network interface "../x": name`:    func() { good.Interfaces[1].Name = "../x" },
		`kind "vxlan"`:                      func() { good.Interfaces[1].Kind = "vxlan" },
		`kind "veth": attribute 1`:          func() { good.Interfaces[1].Data = []byte{8, 0, 1, 0, 0, 0, 0, 0} },
		"index 4294967295":                  func() { good.Interfaces[1].Index = 1<<32 - 1 },
		"network address 10.0.0.1/33":       func() { good.Addresses[0].Prefix = 33 },
		"network address 01/8":              func() { good.Addresses[0].Local = []byte{1} },
		"route to 10.0.0.0/200":             func() { good.Routes[0].Prefix = 200 },
		"routing rule 5":                    func() { good.Rules[0].Source = []byte{1, 2, 3, 4} },
		"packet filters of network 8":       func() { filters.Id = 8 },
		"packet filter: message of type 77": func() { filters.Rules = []*dump.NetfilterMessage{{Type: 77}} },
		"packet filter: attribute 3 of table": func() {
			filters.Rules = []*dump.NetfilterMessage{{Type: unix.NFT_MSG_NEWTABLE, Attributes: []byte{4, 0, 3, 0}}}
		},
		"packet filter: table: netlink attributes end at 0 of 3 bytes": func() {
			filters.Rules = []*dump.NetfilterMessage{{Type: unix.NFT_MSG_NEWTABLE, Attributes: []byte{9, 0, 1}}}
		},
		`table "filter" of iptables: its rules end after 0 of 5 bytes`: func() {
			filters.Tables = []*dump.Xtable{{Family: unix.AF_INET, Name: "filter", Entries: 1 << 30, HookEntry: make([]uint32, 5), Underflow: make([]uint32, 5), Rules: make([]byte, 5)}}
		},
		`queueing discipline "cake"`: func() { good.Qdiscs = []*dump.Qdisc{{Kind: "cake", Handle: 1}} },
	} {
		n, f := proto.CloneOf(good), proto.CloneOf(filters)
		change()
		err := Check(&object.Set{
			Networks: map[uint64]*dump.Network{good.Id: good}, Firewalls: map[uint64]*dump.Firewall{filters.Id: filters},
		})
		if name == "" && err != nil || name != "" && (err == nil || !strings.Contains(err.Error(), name)) {
			t.Errorf("%s: %v", name, err)
		}
		good, filters = n, f
	}
}
