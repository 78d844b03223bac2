// Package link has network interfaces: what they are, how they are made again, and which of them the host gave.
package link

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/network/netlink"
)

// settable are the flags of an interface that can be set (dev_change_flags).
const settable = unix.IFF_UP | unix.IFF_DEBUG | unix.IFF_NOTRAILERS | unix.IFF_NOARP | unix.IFF_DYNAMIC | unix.IFF_MULTICAST |
	unix.IFF_PORTSEL | unix.IFF_AUTOMEDIA | unix.IFF_PROMISC | unix.IFF_ALLMULTI

// fallback are the interfaces that tunnels have in every network namespace once the kernel has them (net.core.fb_tunnels_only_for_init_net).
var fallback = []string{"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6tnl0", "sit0", "ip6gre0", "ip6_vti0"}

// Read lists the interfaces of a network namespace, and names what cannot be restored.
func Read(c *netlink.Conn, ids object.IDMaps) ([]*dump.Interface, []error) {
	var list []*dump.Interface
	var refusals []error
	err := c.Dump(unix.RTM_GETLINK, request(0, func(b *netlink.Builder) { b.Uint32(unix.IFLA_EXT_MASK, linux.RTEXT_FILTER_SKIP_STATS) }),
		func(m netlink.Message) error {
			if len(m.Body) < unix.SizeofIfInfomsg {
				return nil
			}
			i, why := decode(m.Body, ids)
			if why != nil {
				refusals = append(refusals, why)
			} else if i != nil {
				list = append(list, i)
			}
			return nil
		})
	if err != nil {
		refusals = append(refusals, fmt.Errorf("list interfaces: %w", err))
	}
	slices.SortFunc(list, func(a, b *dump.Interface) int { return int(a.Index) - int(b.Index) })
	return list, refusals
}

// request is the body of a message about an interface.
func request(index uint32, f func(*netlink.Builder)) []byte {
	return message(unix.IfInfomsg{Index: int32(index)}, f)
}

func message(head unix.IfInfomsg, f func(*netlink.Builder)) []byte {
	b := netlink.Builder((*[unix.SizeofIfInfomsg]byte)(unsafe.Pointer(&head))[:])
	if f != nil {
		f(&b)
	}
	return b
}

// told is what the kernel tells of an interface beyond its record.
type told struct {
	data, port []byte
	portKind   string
	elsewhere  bool // what it stands on is in another namespace
	carrier    bool
	odd        string // what nobody can set again here
}

// decode makes a record of a message, nil of an interface that the kernel makes by itself.
func decode(body []byte, ids object.IDMaps) (*dump.Interface, error) {
	head := (*unix.IfInfomsg)(unsafe.Pointer(&body[0]))
	i := &dump.Interface{Index: uint32(head.Index), Flags: head.Flags & settable}
	var t told
	for a := range netlink.Attributes(body[unix.SizeofIfInfomsg:]) {
		t.attribute(i, a)
	}
	refuse := func(format string, args ...any) (*dump.Interface, error) {
		return nil, &object.Refusal{FD: -1, Object: "network interface " + i.Name, Why: fmt.Sprintf(format, args...)}
	}
	if slices.Contains(fallback, i.Name) && head.Flags&unix.IFF_UP == 0 {
		return nil, nil
	}
	k, known := kinds[i.Kind]
	i.External = i.Name != "lo" && (i.Kind == "" || t.elsewhere)
	switch {
	case t.odd != "":
		return refuse("%s", t.odd)
	case i.External:
		i.Link, i.Data = 0, nil
		return i, nil
	case !known:
		return refuse("of kind %s", i.Kind)
	}
	i.Data = netlink.Filter(t.data, k.data)
	if t.portKind != "" {
		port, ok := kinds[t.portKind]
		if !ok || port.port == nil {
			return refuse("port of a %s", t.portKind)
		}
		i.PortData = netlink.Filter(t.port, port.port)
	}
	if i.Kind != "tun" {
		if k.check != nil {
			if why := k.check(t.data); why != "" {
				return refuse("%s", why)
			}
		}
		return i, nil
	}
	if t.carrier {
		return refuse("a process has it open")
	}
	var err error
	if i.Tun, err = decodeTun(t.data, ids); err != nil {
		return refuse("%v", err)
	}
	i.Data = nil
	return i, nil
}

// attribute takes one attribute of a message.
func (t *told) attribute(i *dump.Interface, a netlink.Attribute) {
	switch a.Type {
	case unix.IFLA_IFNAME:
		i.Name = a.Text()
	case unix.IFLA_PROP_LIST:
		for p := range netlink.Attributes(a.Value) {
			if p.Type == unix.IFLA_ALT_IFNAME {
				i.AlternativeNames = append(i.AlternativeNames, p.Text())
			}
		}
	case unix.IFLA_IFALIAS:
		i.Alias = a.Text()
	case unix.IFLA_MTU:
		i.Mtu = a.Uint32()
	case unix.IFLA_ADDRESS:
		i.Address = a.Bytes()
	case unix.IFLA_TXQLEN:
		i.QueueLength = a.Uint32()
	case unix.IFLA_NUM_TX_QUEUES:
		i.Queues = a.Uint32()
	case unix.IFLA_NUM_RX_QUEUES:
		i.ReceiveQueues = a.Uint32()
	case unix.IFLA_GROUP:
		i.Group = a.Uint32()
	case unix.IFLA_LINK:
		i.Link = a.Uint32()
	case unix.IFLA_LINK_NETNSID:
		t.elsewhere = true
	case unix.IFLA_MASTER:
		i.Master = a.Uint32()
	case unix.IFLA_OPERSTATE:
		i.State = a.Uint32()
	case unix.IFLA_CARRIER:
		t.carrier = a.Uint32() != 0
	case unix.IFLA_PROTO_DOWN:
		if a.Uint32() != 0 {
			t.odd = "its protocol is down"
		}
	case unix.IFLA_XDP:
		if v := netlink.Find(a.Value, unix.IFLA_XDP_ATTACHED); len(v) > 0 && v[0] != 0 {
			t.odd = "a BPF program (XDP) is attached"
		}
	case unix.IFLA_LINKINFO:
		t.kind(i, a.Value)
	case unix.IFLA_AF_SPEC:
		for p := range netlink.Attributes(netlink.Find(a.Value, unix.AF_INET6)) {
			switch p.Type {
			case unix.IFLA_INET6_ADDR_GEN_MODE:
				i.AddressMode = p.Uint32()
			case unix.IFLA_INET6_TOKEN:
				if slices.ContainsFunc(p.Value, func(b byte) bool { return b != 0 }) {
					i.Token = p.Bytes()
				}
			}
		}
	}
}

func (t *told) kind(i *dump.Interface, info []byte) {
	for a := range netlink.Attributes(info) {
		switch a.Type {
		case unix.IFLA_INFO_KIND:
			i.Kind = a.Text()
		case unix.IFLA_INFO_DATA:
			t.data = a.Value
		case unix.IFLA_INFO_SLAVE_KIND:
			t.portKind = a.Text()
		case unix.IFLA_INFO_SLAVE_DATA:
			t.port = a.Value
		}
	}
}
