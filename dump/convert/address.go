package convert

import (
	"fmt"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"vps/dump"
)

// Addresses are network addresses of an instance, each with the one that takes its place.
type Addresses map[netip.Addr]netip.Addr

// Check refuses what cannot take the place of another.
func (a Addresses) Check() error {
	for old, new := range a {
		if !old.IsValid() || old.Is4() != new.Is4() || old.Zone() != "" || new.Zone() != "" || old.IsUnspecified() || new.IsUnspecified() {
			return fmt.Errorf("%v cannot become %v", old, new)
		}
	}
	return nil
}

// Edit changes a record: addresses of interfaces, routes and rules for just one of them, and sockets that are bound to one. A TCP
// connection to somebody else keeps the address that its peer knows. Where that is not there any more, a restore ends the connection as
// a reset by its peer would. Packet filters and what programs remember stay as they are.
func (a Addresses) Edit(m proto.Message) error {
	switch m := m.(type) {
	case *dump.Network:
		a.network(m)
	case *dump.Socket:
		a.socket(m)
	}
	return nil
}

func (a Addresses) network(n *dump.Network) {
	for _, i := range n.GetAddresses() {
		i.Local, i.Address = a.bytes(i.Local), a.bytes(i.Address)
	}
	for _, r := range n.GetRoutes() {
		r.PreferredSource = a.bytes(r.PreferredSource)
		r.Destination = a.single(r.Destination, r.Prefix)
	}
	for _, r := range n.GetRules() {
		r.Source, r.Destination = a.single(r.Source, r.SourcePrefix), a.single(r.Destination, r.DestinationPrefix)
	}
	for _, e := range n.GetNeighbours() {
		e.Destination = a.bytes(e.Destination)
	}
}

func (a Addresses) socket(s *dump.Socket) {
	if t := s.GetTcp(); t != nil {
		switch t.GetState() {
		case dump.Tcp_CLOSED, dump.Tcp_DEAD, dump.Tcp_LISTEN:
		default:
			if a.has(s.GetLocal()) != a.has(s.GetPeer()) {
				return
			}
			if s.Peer != nil {
				s.Peer.Address = a.bytes(s.Peer.Address)
			}
		}
	}
	if s.Local != nil {
		s.Local.Address = a.bytes(s.Local.Address)
	}
}

func (a Addresses) has(s *dump.SocketAddress) bool {
	ip, _ := netip.AddrFromSlice(s.GetAddress())
	_, ok := a[ip.Unmap()]
	return ok
}

// bytes returns what takes the place of an address, which may be of IPv4 in the form of IPv6.
func (a Addresses) bytes(address []byte) []byte {
	ip, _ := netip.AddrFromSlice(address)
	new, ok := a[ip.Unmap()]
	switch {
	case !ok:
		return address
	case ip.Is4In6():
		mapped := new.As16()
		return mapped[:]
	}
	return new.AsSlice()
}

// single is bytes for a network that is a single address.
func (a Addresses) single(address []byte, prefix uint32) []byte {
	if int(prefix) != 8*len(address) {
		return address
	}
	return a.bytes(address)
}

// Unplug takes the interfaces that the host gave out of a record, and what belongs to them.
func Unplug(m proto.Message) error {
	n, ok := m.(*dump.Network)
	if !ok {
		return nil
	}
	given := make(map[uint32]bool)
	for _, i := range n.GetInterfaces() {
		given[i.GetIndex()] = i.GetExternal()
	}
	n.Interfaces = slices.DeleteFunc(n.Interfaces, func(i *dump.Interface) bool { return i.GetExternal() || given[i.GetLink()] && i.GetLink() != 0 })
	for _, i := range n.Interfaces {
		given[i.GetIndex()] = false
	}
	here := func(index uint32) bool {
		lost, known := given[index]
		return index == 0 || known && !lost
	}
	gone := make(map[uint32]bool) // next hops
	n.Addresses = slices.DeleteFunc(n.Addresses, func(a *dump.InterfaceAddress) bool { return !here(a.GetInterface()) })
	n.Neighbours = slices.DeleteFunc(n.Neighbours, func(e *dump.Neighbour) bool { return !here(e.GetInterface()) || !here(e.GetMaster()) })
	n.Qdiscs = slices.DeleteFunc(n.Qdiscs, func(q *dump.Qdisc) bool { return !here(q.GetInterface()) })
	n.Nexthops = slices.DeleteFunc(n.Nexthops, func(h *dump.Nexthop) bool {
		gone[h.GetId()] = !here(h.GetInterface()) ||
			slices.ContainsFunc(h.GetMembers(), func(m *dump.NexthopMember) bool { return gone[m.GetId()] })
		return gone[h.GetId()]
	})
	n.Routes = slices.DeleteFunc(n.Routes, func(r *dump.Route) bool {
		return gone[r.GetNexthop()] || slices.ContainsFunc(r.GetHops(), func(h *dump.RouteHop) bool { return !here(h.GetInterface()) })
	})
	return nil
}
