// Package network has the network namespace: interfaces, addresses, routes, packet filters, settings. Each is in a package of its
// own below; here is the order in which they are read and made.
package network

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/network/firewall"
	"vps/object/network/link"
	"vps/object/network/netlink"
	"vps/object/network/route"
	"vps/object/network/traffic"
	"vps/remote"
)

// Stack is what a network namespace holds.
type Stack struct {
	Network  *dump.Network
	Firewall *dump.Firewall // nil: no filters
}

// Probe returns what of the network of an instance, whose init is given by its pid here, cannot be restored.
func Probe(init int) []error {
	_, refusals := read(init)
	return refusals
}

// Read reads the network of an instance, whose init is given by its pid here. It is the same every time until somebody changes it.
func Read(init int) (Stack, error) {
	s, refusals := read(init)
	return s, errors.Join(refusals...)
}

// Dump writes the records.
func (s Stack) Dump(sink object.Sink) error {
	if s.Network == nil {
		return nil
	}
	if err := sink.Put(s.Network.Id, s.Network); err != nil {
		return err
	}
	if s.Firewall != nil {
		return sink.Put(s.Firewall.Id, s.Firewall)
	}
	return nil
}

func read(init int) (s Stack, refusals []error) {
	ours, err := shared(init)
	if err != nil {
		return s, []error{err}
	}
	if ours {
		return s, nil
	}
	ids, err := object.ReadIDMaps(init)
	if err != nil {
		return s, []error{err}
	}
	err = object.InNamespace(init, "net", unix.CLONE_NEWNET, func() error {
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
			return err
		}
		c, err := netlink.Open(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer c.Close()
		s.Network, refusals = readNetwork(c, ids)
		s.Network.Id = st.Ino
		filters, bad := firewall.Read()
		if refusals = append(refusals, bad...); !firewall.Empty(filters) {
			filters.Id = st.Ino
			s.Firewall = filters
		}
		return nil
	})
	if err != nil {
		refusals = append(refusals, fmt.Errorf("network: %w", err))
	}
	return s, refusals
}

// readNetwork reads what rtnetlink tells.
func readNetwork(c *netlink.Conn, ids object.IDMaps) (*dump.Network, []error) {
	n := &dump.Network{}
	t := route.Table{Conn: c, IDs: ids}
	var refusals []error
	for _, read := range []func() []error{
		func() (bad []error) { n.Interfaces, bad = link.Read(c, ids); return bad },
		func() (bad []error) { n.Addresses, bad = t.Addresses(); return bad },
		func() (bad []error) { n.Neighbours, bad = t.Neighbours(); return bad },
		func() (bad []error) { n.Nexthops, bad = t.Nexthops(); return bad },
		func() (bad []error) { n.Routes, bad = t.Routes(); return bad },
		func() (bad []error) { n.Rules, bad = t.Rules(); return bad },
		func() (bad []error) { n.Qdiscs, bad = traffic.Read(c, n.Interfaces); return bad },
	} {
		refusals = append(refusals, read()...)
	}
	return n, refusals
}

// Check refuses records that make no sense.
func Check(set *object.Set) error {
	if len(set.Networks) > 1 {
		return fmt.Errorf("%d network namespaces: %w", len(set.Networks), object.ErrUnsupported)
	}
	for id, n := range set.Networks {
		for _, check := range []func() error{
			func() error { return link.Check(n.Interfaces) },
			func() error { return route.CheckAddresses(n.Addresses) },
			func() error { return route.CheckNeighbours(n.Neighbours) },
			func() error { return route.CheckNexthops(n.Nexthops) },
			func() error { return route.CheckRoutes(n.Routes) },
			func() error { return route.CheckRules(n.Rules) },
			func() error { return traffic.Check(n.Qdiscs) },
		} {
			if err := check(); err != nil {
				return fmt.Errorf("network %d: %w", id, err)
			}
		}
	}
	for id, f := range set.Firewalls {
		if set.Networks[id] == nil {
			return fmt.Errorf("packet filters of network %d, which is not there", id)
		}
		if err := firewall.Check(f); err != nil {
			return fmt.Errorf("network %d: %w", id, err)
		}
	}
	return nil
}

// External lists the interfaces that the host has given to the instance of a set: they must be there, by their names, when its
// network is restored. With the same index too, what knows an interface by that needs no other.
func External(set *object.Set) []*dump.Interface {
	var list []*dump.Interface
	for _, n := range set.Networks {
		for _, i := range n.Interfaces {
			if i.External {
				list = append(list, i)
			}
		}
	}
	return list
}

// Options say how a network is restored.
type Options struct {
	PID      int          // of a process in the namespace, here
	Bound    uint64       // capabilities that the instance may have: without CAP_NET_ADMIN nothing is made but addresses and routes
	Settings func() error // sets what of Instance.sysctl is the network's: when all interfaces are there, and none is up
}

// Restore makes the network namespace equal to the records: by sockets of the maker, so that the kernel itself asks whether
// the instance may. Interfaces that the host gave are there, by their names.
func Restore(ctx context.Context, m *object.Maker, set *object.Set, o Options) error {
	var n *dump.Network
	for _, n = range set.Networks {
	}
	ours, err := shared(o.PID)
	if err != nil {
		return err
	}
	if n == nil || ours {
		return o.Settings()
	}
	ids, err := object.ReadIDMaps(o.PID)
	if err != nil {
		return err
	}
	s := &restorer{Options: o, maker: m, ids: ids, network: n, filters: set.Firewalls[n.Id]}
	if s.route, err = s.open(ctx, unix.NETLINK_ROUTE, &s.conn); err != nil {
		return err
	}
	defer s.conn.Close()
	sockets := []int{s.route}
	if s.filters != nil {
		if s.socket, err = s.open(ctx, unix.NETLINK_NETFILTER, &s.netfilter); err != nil {
			return err
		}
		defer s.netfilter.Close()
		sockets = append(sockets, s.socket)
	}
	err = object.InNamespace(o.PID, "net", unix.CLONE_NEWNET, func() error { return s.restore(ctx) })
	closed := m.Run(ctx, func(b *remote.Batch) {
		for _, fd := range sockets {
			b.Call("close", unix.SYS_CLOSE, fd)
		}
	})
	return errors.Join(err, closed)
}

type restorer struct {
	Options
	maker           *object.Maker
	ids             object.IDMaps
	network         *dump.Network
	filters         *dump.Firewall // nil: none
	conn, netfilter *netlink.Conn
	route, socket   int // the maker's descriptors of them
}

// open lets the maker open a netlink socket, and takes it. It returns the maker's descriptor.
func (s *restorer) open(ctx context.Context, protocol int, to **netlink.Conn) (int, error) {
	var batch *remote.Batch
	var socket remote.Result
	err := s.maker.Run(ctx, func(b *remote.Batch) {
		batch = b
		socket = b.Call("netlink socket", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	})
	if err != nil {
		return -1, err
	}
	fd, err := batch.Value(socket)
	if err != nil {
		return -1, err
	}
	var f *os.File
	if f, err = s.maker.Take(int(fd)); err == nil {
		*to, err = netlink.New(f)
	}
	return int(fd), err
}

// restore goes from the ground up: packet filters are there before anything is up.
func (s *restorer) restore(ctx context.Context) error {
	n := s.network
	if s.Bound&(1<<unix.CAP_NET_ADMIN) == 0 {
		// What the host gives may have been given addresses, and be somewhere else now.
		s.conn.Forbid("the instance may not configure its network (CAP_NET_ADMIN)", unix.RTM_SETLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR,
			unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWNEIGH)
		if s.filters != nil {
			return fmt.Errorf("packet filters: the instance may not have any (CAP_NET_ADMIN)")
		}
	}
	links := link.NewRestorer(s.conn, s.ids, n.Interfaces)
	routes := route.Table{Conn: s.conn, IDs: s.ids, Index: links.Index, Send: func(message []byte) error {
		return s.maker.Run(ctx, func(b *remote.Batch) {
			b.Call("send a netlink message", unix.SYS_SENDTO, s.route, b.Data(message), len(message), 0, 0, 0)
		})
	}}
	filters := firewall.Restorer{Maker: s.maker, Conn: s.netfilter, Socket: s.socket}
	for _, step := range []func() error{
		links.Make, links.Equip, s.Settings,
		func() error { return filters.RestoreRules(ctx, s.filters) },
		links.Up, links.Settle,
		func() error { return routes.RestoreAddresses(n.Addresses) },
		func() error { return routes.RestoreNeighbours(n.Neighbours) },
		func() error { return routes.RestoreNexthops(n.Nexthops) },
		func() error { return routes.RestoreRoutes(n.Routes) },
		func() error { return routes.RestoreRules(n.Rules) },
		func() error {
			have, refusals := traffic.Read(s.conn, n.Interfaces)
			if len(refusals) > 0 {
				return refusals[0]
			}
			return traffic.Restore(s.conn, n.Qdiscs, have, links.Index)
		},
		func() error { return filters.RestoreConnections(s.filters) },
		links.Finish,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("network: %w", err)
		}
	}
	return nil
}
