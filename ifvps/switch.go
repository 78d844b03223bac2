// Package ifvps is the host's layer-3 switch: it connects instances with each other and with the host.
//
// Each interface of an instance is a port: one end of a veth pair, whose other end is on the host. What an instance sends is
// looked at there by an eBPF program (tcx), which sends it straight to the instance that owns the destination, or to the host's
// stack, which routes. A packet whose source the instance does not own is dropped and counted. There is no layer 2: the
// links do not speak ARP or neighbour discovery, nor does anything but IPv4 and IPv6 to a single destination pass.
//
// A port has a gate: a word in a table that the programs share with us. While it is closed, packets are kept in a tap's
// queue, and put back before it is opened.
//
// The kernel holds all of it. Of the daemon nothing is needed but to watch which addresses instances configure, to keep packets while
// a gate is closed, and to build anew what somebody removed.
package ifvps

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vps/ifvps/nat"
	"vps/ifvps/plane"
)

// Spec is what an instance has at the switch.
type Spec struct {
	ID         string
	Interfaces []Interface
	Networks   []netip.Prefix // whose addresses it may configure besides those of its interfaces

	// Silent leaves it to others to make the addresses known: there are routes on the host only.
	Silent bool
}

// Interface is one interface of an instance.
type Interface struct {
	Name      string       // inside
	Addresses []netip.Addr // configured, and always its own
	Index     int          // ifindex inside; 0: any
	MAC       [6]byte      // zero: one that is made of the instance's name
	NAT       bool         // outside of the host it has the host's address
	Forwards  []nat.Forward
	In, Out   uint64 // bandwidth, bits per second; 0: no limit
}

// allows tells whether the instance may use an address.
func (s *Spec) allows(a netip.Addr) bool {
	return slices.ContainsFunc(s.Interfaces, func(i Interface) bool { return slices.Contains(i.Addresses, a) }) ||
		slices.ContainsFunc(s.Networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Switch is the switch of a host, in the network namespace of the process.
type Switch struct {
	key string
	log *slog.Logger
	net *netlink.Handle
	ns  *os.File // our own network namespace

	sender int // socket for announcements

	tables   *plane.Tables
	programs *plane.Programs

	translating sync.Mutex

	mu      sync.Mutex
	members map[string]*Member
}

// Open opens the switch of a host, whose key is part of all names that it makes, and finds what an earlier daemon left of it.
func Open(key string, log *slog.Logger) (s *Switch, err error) {
	s = &Switch{key: key, log: log, sender: -1, members: make(map[string]*Member)}
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("layer-3 switch: %w", err)
		}
	}()
	if s.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if s.net, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if s.sender, err = openSender(); err != nil {
		return nil, err
	}
	if err = s.find(); err != nil {
		return nil, err
	}
	if s.tables == nil {
		if s.tables, err = plane.New(); err != nil {
			return nil, err
		}
	}
	s.programs, err = s.tables.Load()
	return s, err
}

// Close lets go of the switch, which goes on.
func (s *Switch) Close() error {
	for _, m := range s.all() {
		m.close()
	}
	var errs []error
	if s.programs != nil {
		errs = append(errs, s.programs.Close())
	}
	if s.tables != nil {
		s.tables.Close()
	}
	if s.net != nil {
		s.net.Close()
	}
	if s.sender >= 0 {
		errs = append(errs, unix.Close(s.sender))
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	return errors.Join(errs...)
}

// Links tells whether there are links of a switch with this key.
func Links(key string) (bool, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	s := &Switch{key: key, net: h}
	all, err := s.links()
	return len(all) > 0, err
}

// links returns the links that are ours.
func (s *Switch) links() ([]netlink.Link, error) {
	all, err := s.net.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return slices.DeleteFunc(all, func(l netlink.Link) bool { return !IsLink(s.key, l.Attrs().Name) }), nil
}

// IsLink tells whether a link on the host is one of a switch with this key, by its name.
func IsLink(key, name string) bool {
	return len(name) == unix.IFNAMSIZ-1 && strings.HasPrefix(name[1:], key) && strings.Contains(prefixes, name[:1])
}

// find finds the tables that programs of an earlier daemon use.
func (s *Switch) find() error {
	all, err := s.links()
	if err != nil {
		return err
	}
	for _, l := range all {
		attached, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return fmt.Errorf("programs of %s: %w", l.Attrs().Name, err)
		}
		for _, p := range attached.Programs {
			if s.tables, err = plane.Find(p.ID); err != nil || s.tables != nil {
				return err
			}
		}
	}
	return nil
}

// Settle removes what is left of instances that are no members.
func (s *Switch) Settle() error { return errors.Join(s.settle(), s.retranslate()) }

func (s *Switch) settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ours := make(map[string]bool)
	used := make(map[uint32]bool)
	for _, m := range s.members {
		for _, p := range m.ports {
			for _, prefix := range prefixes {
				ours[s.name(prefix, m.spec.ID, p.Name)] = true
			}
			used[p.n] = true
		}
	}
	all, err := s.links()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range all {
		if name := l.Attrs().Name; !ours[name] {
			s.log.Warn("remove what is left of an instance", "link", name)
			errs = append(errs, ignoreGone(s.net.LinkDel(l)))
		}
	}
	for n := uint32(1); n < plane.MaxPorts; n++ {
		if s.tables.Port(n).InUse() && !used[n] {
			errs = append(errs, s.tables.Forget(n))
		}
	}
	return errors.Join(errs...)
}

// natTable is the name of the tables of nftables.
func (s *Switch) natTable() string { return "vps_" + s.key }

// translate has the host translate addresses as the members want it.
func (s *Switch) translate() error {
	s.translating.Lock()
	defer s.translating.Unlock()
	var wants []nat.Interface
	for _, m := range s.all() {
		for _, i := range m.Interfaces() {
			if i.NAT || len(i.Forwards) > 0 {
				wants = append(wants, nat.Interface{Addresses: i.Addresses, Hidden: i.NAT, Forwards: i.Forwards})
			}
		}
	}
	return nat.Replace(s.natTable(), string(prefixHost)+s.key, wants)
}

// retranslate has the host translate what the members want, if it does not, or translates what none wants.
func (s *Switch) retranslate() error {
	wanted := slices.ContainsFunc(s.all(), func(m *Member) bool { return m.spec.translates() })
	has, err := nat.Exists(s.natTable())
	if err != nil && !wanted {
		return nil // a host without nftables
	}
	if err != nil || wanted == has {
		return err
	}
	return s.translate()
}

// all returns the members.
func (s *Switch) all() []*Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.members))
}

// claim takes a free entry in the table of ports.
func (s *Switch) claim(first uint32) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.tables.Claim(first)
	if !ok {
		return 0, fmt.Errorf("all %d ports are in use", plane.MaxPorts-1)
	}
	return n, nil
}

// ignoreGone passes over what is not there.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil
	}
	return err
}
