package convert

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	"vps/dump"
)

func at(ip string, port uint32) *dump.SocketAddress {
	return &dump.SocketAddress{Address: netip.MustParseAddr(ip).AsSlice(), Port: port}
}

func tcp(state dump.Tcp_State, local, peer *dump.SocketAddress) *dump.Socket {
	return &dump.Socket{Local: local, Peer: peer, Tcp: &dump.Tcp{State: state}}
}

func TestAddresses(t *testing.T) {
	other := Addresses{
		netip.MustParseAddr("192.0.2.10"):   netip.MustParseAddr("192.0.2.11"),
		netip.MustParseAddr("2001:db8::10"): netip.MustParseAddr("2001:db8::11"),
	}
	raw := func(ip string) []byte { return netip.MustParseAddr(ip).AsSlice() }
	for name, c := range map[string]struct{ before, after proto.Message }{
		"a listener": {tcp(dump.Tcp_LISTEN, at("192.0.2.10", 80), nil), tcp(dump.Tcp_LISTEN, at("192.0.2.11", 80), nil)},
		"a listener of both protocols": {tcp(dump.Tcp_LISTEN, at("::ffff:192.0.2.10", 80), nil),
			tcp(dump.Tcp_LISTEN, at("::ffff:192.0.2.11", 80), nil)},
		"a listener at any address": {tcp(dump.Tcp_LISTEN, at("0.0.0.0", 80), nil), tcp(dump.Tcp_LISTEN, at("0.0.0.0", 80), nil)},
		"a connection to another": {tcp(dump.Tcp_ESTABLISHED, at("192.0.2.10", 80), at("192.0.2.2", 9)),
			tcp(dump.Tcp_ESTABLISHED, at("192.0.2.10", 80), at("192.0.2.2", 9))},
		"a connection to itself": {tcp(dump.Tcp_ESTABLISHED, at("2001:db8::10", 80), at("2001:db8::10", 9)),
			tcp(dump.Tcp_ESTABLISHED, at("2001:db8::11", 80), at("2001:db8::11", 9))},
		"UDP": {&dump.Socket{Local: at("192.0.2.10", 53), Peer: at("192.0.2.2", 9)}, &dump.Socket{Local: at("192.0.2.11", 53), Peer: at("192.0.2.2", 9)}},
		"a network": {
			&dump.Network{
				Addresses: []*dump.InterfaceAddress{{Local: raw("192.0.2.10"), Prefix: 32}, {Local: raw("192.0.2.12"), Prefix: 32}},
				Routes: []*dump.Route{{PreferredSource: raw("192.0.2.10")}, {Destination: raw("192.0.2.10"), Prefix: 32},
					{Destination: raw("192.0.2.10"), Prefix: 31}},
				Rules: []*dump.RoutingRule{{Source: raw("2001:db8::10"), SourcePrefix: 128}},
			},
			&dump.Network{
				Addresses: []*dump.InterfaceAddress{{Local: raw("192.0.2.11"), Prefix: 32}, {Local: raw("192.0.2.12"), Prefix: 32}},
				Routes: []*dump.Route{{PreferredSource: raw("192.0.2.11")}, {Destination: raw("192.0.2.11"), Prefix: 32},
					{Destination: raw("192.0.2.10"), Prefix: 31}},
				Rules: []*dump.RoutingRule{{Source: raw("2001:db8::11"), SourcePrefix: 128}},
			},
		},
	} {
		if err := other.Edit(c.before); err != nil || !proto.Equal(c.before, c.after) {
			t.Errorf("%s: %v, %v, want %v", name, err, c.before, c.after)
		}
	}
}

func TestAddressesRefused(t *testing.T) {
	for old, new := range map[string]string{"192.0.2.1": "2001:db8::1", "0.0.0.0": "192.0.2.1", "fe80::1%1": "fe80::2"} {
		if err := (Addresses{netip.MustParseAddr(old): netip.MustParseAddr(new)}).Check(); err == nil {
			t.Errorf("%s became %s", old, new)
		}
	}
}

func TestUnplug(t *testing.T) {
	n := &dump.Network{
		Interfaces: []*dump.Interface{{Index: 1, Name: "lo"}, {Index: 2, Name: "vps0", External: true}, {Index: 3, Name: "br0"}, {Index: 4, Name: "mac0", Link: 2}},
		Addresses:  []*dump.InterfaceAddress{{Interface: 1}, {Interface: 2}, {Interface: 3}},
		Nexthops:   []*dump.Nexthop{{Id: 7, Interface: 2}, {Id: 8, Members: []*dump.NexthopMember{{Id: 7}}}, {Id: 9, Blackhole: true}},
		Routes:     []*dump.Route{{Nexthop: 8}, {Nexthop: 9}, {Hops: []*dump.RouteHop{{Interface: 2}}}, {Hops: []*dump.RouteHop{{Interface: 3}}}},
	}
	want := &dump.Network{
		Interfaces: []*dump.Interface{{Index: 1, Name: "lo"}, {Index: 3, Name: "br0"}},
		Addresses:  []*dump.InterfaceAddress{{Interface: 1}, {Interface: 3}},
		Nexthops:   []*dump.Nexthop{{Id: 9, Blackhole: true}},
		Routes:     []*dump.Route{{Nexthop: 9}, {Hops: []*dump.RouteHop{{Interface: 3}}}},
	}
	if err := Unplug(n); err != nil || !proto.Equal(n, want) {
		t.Errorf("%v, %v", n, err)
	}
}
