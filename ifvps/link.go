package ifvps

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// What the names of our links begin with: the host's end, the tap that keeps packets, and the other end while its instance does
// not exist. The key of the host and a hash of instance and interface follow.
const (
	prefixHost = 'v'
	prefixTap  = 't'
	prefixPark = 'p'
	prefixes   = "vtp"
)

// Ways out of an instance. Nobody has these addresses: the links have no neighbours.
var (
	gateway4 = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	gateway6 = netip.MustParseAddr("fe80::1")
)

func digest(id, iface string) [sha256.Size]byte { return sha256.Sum256([]byte(id + "/" + iface)) }

// name is the name of a link of an instance's interface.
func (s *Switch) name(prefix rune, id, iface string) string {
	sum := digest(id, iface)
	rest := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))
	return (string(prefix) + s.key + rest)[:unix.IFNAMSIZ-1]
}

// usualMAC is the address that both ends of a link have: so each takes for its own what the other sends.
func (s *Switch) usualMAC(id, iface string) (mac [6]byte) {
	sum := digest(s.key+"/"+id, iface)
	copy(mac[:], sum[:])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// inside is an instance's network namespace.
type inside struct {
	*netlink.Handle
	ns *os.File
}

// enter opens the network namespace of a process.
func enter(pid int) (in *inside, err error) {
	in = &inside{}
	if in.ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
		return nil, err
	}
	if in.Handle, err = netlink.NewHandleAt(netns.NsHandle(in.ns.Fd()), unix.NETLINK_ROUTE); err != nil {
		in.ns.Close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return in, nil
}

func (in *inside) close() {
	in.Handle.Close()
	in.ns.Close()
}

// makeLink makes a port's pair of links: one end in the instance, one here.
func (p *Port) makeLink(in *inside) error {
	own := netlink.NewLinkAttrs()
	own.Name, own.Index, own.HardwareAddr = p.Name, p.Index, p.MAC[:]
	err := in.LinkAdd(&netlink.Veth{
		LinkAttrs: own, PeerName: p.hostName(), PeerHardwareAddr: p.MAC[:], PeerNamespace: netlink.NsFd(p.member.sw.ns.Fd()),
	})
	if err != nil {
		return fmt.Errorf("make link %s: %w", p.Name, err)
	}
	return nil
}

// makeParked makes a port's pair of links here, for an instance that does not exist.
func (p *Port) makeParked() error {
	own := netlink.NewLinkAttrs()
	own.Name, own.HardwareAddr = p.parkName(), p.MAC[:]
	if err := p.member.sw.net.LinkAdd(&netlink.Veth{LinkAttrs: own, PeerName: p.hostName(), PeerHardwareAddr: p.MAC[:]}); err != nil {
		return fmt.Errorf("make link %s: %w", p.hostName(), err)
	}
	return nil
}

// unpark gives an instance the end of a link that was kept here.
func (p *Port) unpark(in *inside) error {
	link, err := p.member.sw.net.LinkByName(p.parkName())
	if err != nil {
		return fmt.Errorf("link %s: %w", p.parkName(), err)
	}
	if mac := net.HardwareAddr(p.MAC[:]); mac.String() != link.Attrs().HardwareAddr.String() {
		if err := p.member.sw.net.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("link %s: set address %v: %w", p.parkName(), mac, err)
		}
	}
	attrs := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(in.ns.Fd()))), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.Name)),
	}
	if p.Index != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_NEW_IFINDEX, nl.Uint32Attr(uint32(p.Index))))
	}
	if err := setLink(link.Attrs().Index, attrs...); err != nil {
		return fmt.Errorf("move link %s into the instance: %w", p.Name, err)
	}
	return nil
}

// setLink changes a link of the calling thread's namespace: RTM_SETLINK, rtnetlink(7).
func setLink(index int, attrs ...*nl.RtAttr) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	for _, a := range attrs {
		req.AddData(a)
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// park takes an instance's end of a link out of it. An instance that has removed its end has none to take.
func (p *Port) park(in *inside) error {
	link, err := in.LinkByName(p.Name)
	if err != nil {
		return ignoreGone(err)
	}
	return takeOut(in.Handle, link, p.parkName(), p.member.sw.ns)
}

// furnish configures the instance's end of a link: addresses, and ways out.
func (p *Port) furnish(in *inside) error {
	link, err := in.LinkByName(p.Name)
	if err != nil {
		return fmt.Errorf("link %s: %w", p.Name, err)
	}
	fail := func(what any, err error) error { return fmt.Errorf("link %s inside: %v: %w", p.Name, what, err) }
	if err := in.LinkSetARPOff(link); err != nil {
		return fail("no ARP", err)
	}
	if err := in.LinkSetUp(link); err != nil {
		return fail("up", err)
	}
	for _, a := range p.Addresses {
		err := in.AddrAdd(link, &netlink.Addr{IPNet: single(a), Flags: unix.IFA_F_NODAD})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fail(a, err)
		}
	}
	for _, a := range p.Addresses {
		via := gateway4
		if a.Is6() {
			via = gateway6
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: everything(a), Gw: via.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
		if err := in.RouteAdd(route); err != nil && !errors.Is(err, unix.EEXIST) {
			return fail("default route", err)
		}
		if err := lasting(in.Handle, link.Attrs().Index, via, p.MAC); err != nil {
			return fail("way out", err)
		}
	}
	return nil
}

// single is a network of one address.
func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// everything is the network of all addresses like a.
func everything(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
}
