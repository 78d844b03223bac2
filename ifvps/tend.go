package ifvps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// state is what the host has of the switch.
type state struct {
	links    map[string]int // ifindex by name
	routes   map[toLink]bool
	answers  map[toLink]bool
	networks networks
}

// toLink is an address at a link, by its ifindex.
type toLink struct {
	address netip.Addr
	link    int
}

func (s *Switch) state() (*state, error) {
	st := &state{links: make(map[string]int), routes: make(map[toLink]bool), answers: make(map[toLink]bool)}
	links, err := s.links()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		st.links[l.Attrs().Name] = l.Attrs().Index
	}
	routes, err := s.net.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil {
			st.routes[at(r.Dst.IP, r.LinkIndex)] = true
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		answers, err := s.net.NeighProxyList(0, family)
		if err != nil {
			return nil, fmt.Errorf("list answers for others: %w", err)
		}
		for _, n := range answers {
			st.answers[at(n.IP, n.LinkIndex)] = true
		}
	}
	st.networks, err = s.networks()
	return st, err
}

func at(ip []byte, link int) toLink {
	a, _ := netip.AddrFromSlice(ip)
	return toLink{a.Unmap(), link}
}

// Tend builds anew what somebody has removed of the switch, and announces addresses in networks that the host has been connected to
// since. It is to be called now and then.
func (s *Switch) Tend() error {
	all := s.all()
	if len(all) == 0 {
		return nil
	}
	st, err := s.state()
	if err != nil {
		return err
	}
	errs := []error{s.retranslate()}
	for _, m := range all {
		errs = append(errs, m.tend(st))
	}
	return errors.Join(errs...)
}

func (m *Member) tend(st *state) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, p := range m.ports {
		whole, err := p.whole(st)
		if err == nil && !whole && st.links[p.hostName()] != 0 { // one that is not there was removed by the instance
			m.sw.log.Warn("build anew what was removed", "instance", m.spec.ID, "interface", p.Name)
			err = p.present()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.spec.ID, err))
		}
	}
	return errors.Join(errs...)
}

// whole tells whether everything of a port is there.
func (p *Port) whole(st *state) (bool, error) {
	ifindex := st.links[p.hostName()]
	if ifindex == 0 || ifindex != p.entry().Link() || p.member.sw.tables.Of(ifindex) != p.n {
		return false, nil
	}
	for _, where := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		has, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: where})
		if err != nil || len(has.Programs) == 0 {
			return false, ignoreGone(err)
		}
	}
	for _, a := range p.owned {
		if p.has(a) && !st.routes[toLink{a, ifindex}] || !p.member.sw.tables.Owns(a, p.n) {
			return false, nil
		}
		for _, l := range st.networks.neighbours(a) {
			if !p.member.spec.Silent && !st.answers[toLink{a, l.Attrs().Index}] {
				return false, nil
			}
		}
	}
	return true, nil
}
