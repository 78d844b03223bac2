package ifvps

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our routes (rtm_protocol, rtnetlink(7)).
const routeProtocol = 118

// genNone is IN6_ADDR_GEN_MODE_NONE of include/uapi/linux/if_link.h: a link has no address by itself.
const genNone = 1

// plug connects the host's end of a port's link with the switch. What is as it should be stays.
func (p *Port) plug() error {
	s, name := p.member.sw, p.hostName()
	host, err := s.net.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	a := host.Attrs()
	p.entry().SetLink(a.Index)
	if err := s.tables.Link(a.Index, p.n); err != nil {
		return err
	}
	if err := attach(a.Index, ebpf.AttachTCXIngress, s.programs.Out); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := attach(a.Index, ebpf.AttachTCXEgress, s.programs.In); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_NOARP != 0 {
		return nil
	}
	if err := s.net.LinkSetAlias(host, p.member.spec.ID+" "+p.Name); err != nil {
		return fmt.Errorf("link %s: name it: %w", name, err)
	}
	if err := s.net.LinkSetIP6AddrGenMode(host, genNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("link %s: no address: %w", name, err)
	}
	if err := s.net.LinkSetARPOff(host); err != nil {
		return fmt.Errorf("link %s: no ARP: %w", name, err)
	}
	for file, value := range map[string]string{"ipv4/conf/%s/forwarding": "1", "ipv4/conf/%s/send_redirects": "0", "ipv6/conf/%s/accept_ra": "0"} {
		if err := setSysctl(fmt.Sprintf(file, name), value); err != nil {
			return err
		}
	}
	if err := s.net.LinkSetUp(host); err != nil {
		return fmt.Errorf("link %s: up: %w", name, err)
	}
	return nil
}

// attach attaches a program to a link, instead of those of other versions that are ours by their name.
func attach(ifindex int, where ebpf.AttachType, p *ebpf.Program) error {
	info, err := p.Info()
	if err != nil {
		return fmt.Errorf("program: %w", err)
	}
	has, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: where})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("eBPF at interfaces (tcx, Linux 6.6) is not there: %w", err)
	}
	if err != nil {
		return fmt.Errorf("list programs: %w", err)
	}
	for _, other := range has.Programs {
		old, err := ebpf.NewProgramFromID(other.ID)
		if err != nil {
			return fmt.Errorf("open program %d: %w", other.ID, err)
		}
		theirs, err := old.Info()
		if err == nil && theirs.Name == info.Name {
			if theirs.Tag == info.Tag && sameMaps(theirs, info) {
				old.Close()
				return nil
			}
			err = link.RawDetachProgram(link.RawDetachProgramOptions{Target: ifindex, Program: old, Attach: where})
		}
		old.Close()
		if err != nil {
			return fmt.Errorf("replace program %d: %w", other.ID, err)
		}
	}
	if err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: ifindex, Program: p, Attach: where}); err != nil {
		return fmt.Errorf("attach program %s: %w", info.Name, err)
	}
	return nil
}

func sameMaps(a, b *ebpf.ProgramInfo) bool {
	theirs, _ := a.MapIDs()
	ours, _ := b.MapIDs()
	seen := make(map[ebpf.MapID]bool)
	for _, id := range theirs {
		seen[id] = true
	}
	for _, id := range ours {
		if !seen[id] {
			return false
		}
	}
	return true
}

// route has the host send packets for an address to a port, or say that the address is unreachable.
func (p *Port) route(a netip.Addr) error {
	s := p.member.sw
	if err := ignoreGone(s.net.RouteDel(p.way(a, !p.has(a)))); err != nil {
		return fmt.Errorf("remove route to %v: %w", a, err)
	}
	if err := s.net.RouteReplace(p.way(a, p.has(a))); err != nil {
		return fmt.Errorf("route to %v: %w", a, err)
	}
	return lasting(p.member.sw.net, p.entry().Link(), a, p.MAC)
}

// way is the route to an address that is there, or is not.
func (p *Port) way(a netip.Addr, present bool) *netlink.Route {
	if !present {
		return &netlink.Route{Dst: single(a), Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol}
	}
	return &netlink.Route{LinkIndex: p.entry().Link(), Dst: single(a), Scope: scope(a), Protocol: routeProtocol}
}

// lasting enters a neighbour that needs no place in the table of neighbours, which is one for all namespaces, and may be full.
func lasting(h *netlink.Handle, ifindex int, a netip.Addr, mac [6]byte) error {
	err := h.NeighSet(&netlink.Neigh{
		LinkIndex: ifindex, Family: family(a), State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac[:],
	})
	if err != nil {
		return fmt.Errorf("neighbour %v: %w", a, err)
	}
	return nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func (p *Port) unroute(a netip.Addr) error {
	err := p.member.sw.net.RouteDel(p.way(a, p.has(a)))
	if err = ignoreGone(err); err != nil {
		return fmt.Errorf("remove route to %v: %w", a, err)
	}
	err = p.member.sw.net.NeighDel(&netlink.Neigh{LinkIndex: p.entry().Link(), Family: family(a), IP: a.AsSlice()})
	if err = ignoreGone(err); err != nil {
		return fmt.Errorf("remove neighbour %v: %w", a, err)
	}
	return nil
}

func scope(a netip.Addr) netlink.Scope {
	if a.Is4() {
		return netlink.SCOPE_LINK
	}
	return netlink.SCOPE_UNIVERSE
}

// forward makes the host a router for packets like a. An interface that configures itself by router advertisements goes on to.
func (s *Switch) forward(a netip.Addr) error {
	file := "ipv4/ip_forward"
	if a.Is6() {
		file = "ipv6/conf/all/forwarding"
	}
	if value, err := readSysctl(file); err != nil || value != "0" {
		return err
	}
	if a.Is6() {
		all, err := filepath.Glob(sysctls + "ipv6/conf/*/accept_ra")
		if err != nil {
			return err
		}
		for _, path := range all {
			name := path[len(sysctls):]
			if value, err := readSysctl(name); err == nil && value == "1" && filepath.Base(filepath.Dir(name)) != "all" {
				if err := setSysctl(name, "2"); err != nil {
					return err
				}
			}
		}
	}
	s.log.Info("the host forwards packets from now on", "sysctl", "net/"+file)
	return setSysctl(file, "1")
}

const sysctls = "/proc/sys/net/"

func readSysctl(name string) (string, error) {
	text, err := os.ReadFile(sysctls + name)
	return string(bytes.TrimSpace(text)), err
}

// setSysctl sets a parameter that is there; one of a protocol that the kernel lacks is not.
func setSysctl(name, value string) error {
	if has, err := readSysctl(name); errors.Is(err, os.ErrNotExist) || err == nil && has == value {
		return nil
	}
	if err := os.WriteFile(sysctls+name, []byte(value), 0); err != nil {
		return fmt.Errorf("set net/%s to %s: %w", name, value, err)
	}
	return nil
}
