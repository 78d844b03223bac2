package ifvps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// announce makes the host receive packets for an address and send them to the port: a route, and, where the address is in a network
// that the host is connected to, an answer for it there (arp(7), RFC 4389), with word of it to all neighbours.
func (p *Port) announce(a netip.Addr) error {
	s := p.member.sw
	if err := s.forward(a); err != nil {
		return err
	}
	if err := p.route(a); err != nil {
		return err
	}
	if p.member.spec.Silent {
		return nil
	}
	all, err := s.networks()
	if err != nil {
		return err
	}
	for _, l := range all.neighbours(a) {
		if err := s.answer(l, a); err != nil {
			return err
		}
	}
	return nil
}

// revoke is the opposite of announce.
func (p *Port) revoke(a netip.Addr) error {
	s := p.member.sw
	if p.member.spec.Silent {
		return p.unroute(a)
	}
	all, err := s.networks()
	errs := []error{err, p.unroute(a)}
	for _, l := range all.neighbours(a) {
		errs = append(errs, ignoreGone(s.net.NeighDel(proxy(l, a))))
	}
	return errors.Join(errs...)
}

// network is one that the host is connected to.
type network struct {
	net.IPNet
	link netlink.Link
}

type networks []network

// networks returns the networks in which others may look for an address.
func (s *Switch) networks() (networks, error) {
	links, err := s.net.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	byIndex := make(map[int]netlink.Link)
	for _, l := range links {
		if a := l.Attrs(); a.RawFlags&(unix.IFF_LOOPBACK|unix.IFF_NOARP) == 0 && a.RawFlags&unix.IFF_UP != 0 && len(a.HardwareAddr) == 6 {
			byIndex[a.Index] = l
		}
	}
	addresses, err := s.net.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all networks
	for _, a := range addresses {
		if l := byIndex[a.LinkIndex]; l != nil {
			all = append(all, network{*a.IPNet, l})
		}
	}
	return all, nil
}

// neighbours returns the links on whose networks others may look for an address.
func (all networks) neighbours(a netip.Addr) []netlink.Link {
	var near []netlink.Link
	seen := make(map[int]bool)
	for _, n := range all {
		if ones, bits := n.Mask.Size(); ones < bits && bits == a.BitLen() && n.Contains(a.AsSlice()) && !seen[n.link.Attrs().Index] {
			seen[n.link.Attrs().Index] = true
			near = append(near, n.link)
		}
	}
	return near
}

func proxy(l netlink.Link, a netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: family(a), Flags: netlink.NTF_PROXY, IP: a.AsSlice()}
}

// answer has the host answer for an address on a link, at once, and tells those who know it already.
func (s *Switch) answer(l netlink.Link, a netip.Addr) error {
	name := l.Attrs().Name
	settings := map[string]string{"ipv4/neigh/%s/proxy_delay": "0"}
	if a.Is6() {
		settings = map[string]string{"ipv6/conf/%s/proxy_ndp": "1", "ipv6/neigh/%s/proxy_delay": "0"}
	}
	for file, value := range settings {
		if err := setSysctl(fmt.Sprintf(file, name), value); err != nil {
			return err
		}
	}
	has, err := s.net.NeighProxyList(l.Attrs().Index, proxy(l, a).Family)
	if err != nil {
		return fmt.Errorf("answers for others on %s: %w", name, err)
	}
	for _, n := range has {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a {
			return nil
		}
	}
	if err := s.net.NeighSet(proxy(l, a)); err != nil {
		return fmt.Errorf("answer for %v on %s: %w", a, name, err)
	}
	mac := [6]byte(l.Attrs().HardwareAddr)
	if a.Is4() {
		err = send(s.sender, l.Attrs().Index, unix.ETH_P_ARP, gratuitousARP(a, mac))
	} else {
		err = send(s.sender, l.Attrs().Index, unix.ETH_P_IPV6, unsolicitedNA(a, mac))
	}
	if err != nil {
		return fmt.Errorf("announce %v on %s: %w", a, name, err)
	}
	return nil
}

// gratuitousARP is an ARP announcement, RFC 5227.
func gratuitousARP(a netip.Addr, mac [6]byte) []byte {
	ip := a.As4()
	b := ethernet([6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
	b = append(append(b, mac[:]...), ip[:]...)
	b = append(append(b, 0, 0, 0, 0, 0, 0), ip[:]...)
	return append(b, make([]byte, 60-len(b))...)
}

// unsolicitedNA is a neighbour advertisement to all nodes, RFC 4861 section 7.2.6.
func unsolicitedNA(a netip.Addr, mac [6]byte) []byte {
	const icmp, length = 58, 32
	all := netip.MustParseAddr("ff02::1").As16()
	ip := a.As16()
	m := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // override
	m = append(m, ip[:]...)
	m = append(append(m, 2, 1), mac[:]...) // target link-layer address
	pseudo := append(append([]byte{}, ip[:]...), all[:]...)
	pseudo = append(pseudo, 0, 0, 0, length, 0, 0, 0, icmp)
	binary.BigEndian.PutUint16(m[2:], checksum(append(pseudo, m...)))
	b := ethernet([6]byte{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0, 0, length, icmp, 255)
	b = append(append(b, ip[:]...), all[:]...)
	return append(b, m...)
}

func ethernet(to, from [6]byte, protocol uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte{}, to[:]...), from[:]...), protocol)
}

// checksum is the one of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// openSender opens a socket that receives nothing, packet(7).
func openSender() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	return fd, nil
}

// send sends a frame.
func send(fd, ifindex int, protocol uint16, frame []byte) error {
	to := &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: htons(protocol), Halen: 6}
	copy(to.Addr[:], frame)
	return unix.Sendto(fd, frame, 0, to)
}

// htons is a 16-bit number as a packet has it.
func htons(n uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)) }
