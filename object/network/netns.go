// Package network has the network namespace: interfaces, addresses, routes. An instance whose network is more than a
// loopback interface is refused.
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
// every instance has it, and the links that the manager has given it, with their addresses and routes.
func Probe(init int, links []string) []error {
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
		all, err := h.LinkList()
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		given := make(map[int]bool)
		for _, link := range all {
			if name := link.Attrs().Name; slices.Contains(links, name) {
				given[link.Attrs().Index] = true
			} else if name != "lo" {
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
			if !given[r.LinkIndex] && (r.Dst == nil || !r.Dst.IP.IsLoopback()) {
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
