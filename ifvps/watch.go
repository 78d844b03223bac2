package ifvps

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// watch looks at an instance's addresses and links.
type watch struct {
	socket *nl.NetlinkSocket
	over   chan struct{}
}

// mostAdded is how many addresses one interface may have besides those of its configuration.
const mostAdded = 256

// calm is for how long an instance's changes are gathered.
const calm = 20 * time.Millisecond

// startWatch begins to watch, after a first look. The caller holds m.mu.
func (m *Member) startWatch(in *inside) error {
	m.stopWatch()
	socket, err := nl.SubscribeAt(netns.NsHandle(in.ns.Fd()), netns.None(), unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	w := &watch{socket: socket, over: make(chan struct{})}
	m.watch = w
	go m.follow(w)
	return m.look(in)
}

func (m *Member) stopWatch() {
	if m.watch != nil {
		m.watch.socket.Close()
		m.watch = nil
	}
}

func (m *Member) follow(w *watch) {
	defer close(w.over)
	for {
		// What it says does not matter, nor that some of it is lost.
		_, _, err := w.socket.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		time.Sleep(calm)
		m.mu.Lock()
		if m.watch != w {
			m.mu.Unlock()
			return
		}
		if err := m.lookAgain(); err != nil {
			m.sw.log.Warn("addresses of an instance", "instance", m.spec.ID, "error", err)
		}
		m.mu.Unlock()
	}
}

// Allow says in which networks the instance may have addresses, besides those of its interfaces.
func (m *Member) Allow(all []netip.Prefix) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spec.Networks = all
	if m.parked {
		return nil
	}
	return m.lookAgain()
}

// lookAgain looks at the instance's addresses. The caller holds m.mu.
func (m *Member) lookAgain() error {
	in, err := enter(m.pid)
	if err != nil {
		return err
	}
	defer in.close()
	return m.look(in)
}

// look makes what the instance has configured, and is allowed to, its own, and what it has removed nobody's.
func (m *Member) look(in *inside) error {
	var errs []error
	for _, p := range m.ports {
		has, err := p.configured(in)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, a := range slices.Clone(p.owned) {
			if !slices.Contains(p.Addresses, a) && (!slices.Contains(has, a) || !m.spec.allows(a)) {
				errs = append(errs, p.revoke(a), p.disown(a))
			}
		}
		for _, a := range has {
			if slices.Contains(p.owned, a) || len(p.owned) >= len(p.Addresses)+mostAdded || !m.spec.allows(a) {
				continue
			}
			if err := p.own(a); err != nil {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, p.announce(a))
		}
		errs = append(errs, p.follow(has))
	}
	return errors.Join(errs...)
}

// follow makes unreachable what the instance has of its own not configured.
func (p *Port) follow(has []netip.Addr) error {
	var errs []error
	for _, a := range p.owned {
		present := slices.Contains(has, a)
		switch {
		case present == p.has(a):
			continue
		case present:
			p.absent = slices.DeleteFunc(p.absent, func(other netip.Addr) bool { return other == a })
		default:
			p.absent = append(p.absent, a)
		}
		errs = append(errs, p.member.sw.tables.Own(a, p.n, present), p.route(a))
	}
	return errors.Join(errs...)
}

// configured returns the addresses that an instance has given to an interface; none, if that is down.
func (p *Port) configured(in *inside) ([]netip.Addr, error) {
	link, err := in.LinkByName(p.Name)
	if err != nil {
		return nil, ignoreGone(err)
	}
	p.Index = link.Attrs().Index
	if mac := link.Attrs().HardwareAddr; len(mac) == len(p.MAC) {
		copy(p.MAC[:], mac)
	}
	if link.Attrs().RawFlags&unix.IFF_UP == 0 {
		return nil, nil
	}
	all, err := in.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", p.Name, err)
	}
	var list []netip.Addr
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ok && !ip.IsLinkLocalUnicast() && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsMulticast() {
			list = append(list, ip)
		}
	}
	return list, nil
}
