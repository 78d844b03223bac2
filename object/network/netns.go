// Package network has the network namespace: interfaces, addresses, routes. An instance whose network is more than a
// loopback interface, and what the host has given it, is refused.
package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vps/object"
)

// Probe refuses an instance, whose init is given by its pid here, whose network is more than a loopback interface as
// every instance has it. The interfaces in external, by name, are there again before a restore, with addresses and routes.
func Probe(init int, external []string) []error {
	var refusals []error
	refuse := func(format string, args ...any) {
		refusals = append(refusals, &object.Refusal{FD: -1, Object: fmt.Sprintf(format, args...)})
	}
	err := object.InNamespace(init, "net", unix.CLONE_NEWNET, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer h.Close()
		links, err := h.LinkList()
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		given := make(map[int]bool) // by index
		for _, link := range links {
			name := link.Attrs().Name
			given[link.Attrs().Index] = slices.Contains(external, name)
			if name != "lo" && !given[link.Attrs().Index] {
				refuse("network interface %s", name)
			}
		}
		addresses, err := h.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range addresses {
			if given[a.LinkIndex] {
				continue
			}
			if ip, ok := netip.AddrFromSlice(a.IP); !ok || !ip.Unmap().IsLoopback() || a.Flags&unix.IFA_F_PERMANENT == 0 {
				refuse("network address %s", a.IPNet)
			}
		}
		routes, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if given[r.LinkIndex] {
				continue
			}
			if r.Dst == nil || !r.Dst.IP.IsLoopback() {
				refuse("network route to %s", r.Dst)
			}
		}
		return nil
	})
	if err != nil {
		refusals = append(refusals, err)
	}
	return refusals
}
