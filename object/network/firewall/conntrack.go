package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object/network/netlink"
)

// kept are the attributes of a tracked connection that can be set.
var kept = []uint16{
	linux.CTA_TUPLE_ORIG, linux.CTA_TUPLE_REPLY, linux.CTA_STATUS, linux.CTA_PROTOINFO, linux.CTA_HELP, linux.CTA_TIMEOUT, linux.CTA_MARK,
	linux.CTA_SEQ_ADJ_ORIG, linux.CTA_SEQ_ADJ_REPLY, linux.CTA_ZONE, linux.CTA_LABELS, linux.CTA_SYNPROXY,
}

func conntrackType(kind uint16) uint16 { return unix.NFNL_SUBSYS_CTNETLINK<<8 | kind }

// readConnections lists the connections that are tracked. It takes milliseconds: those of all namespaces are in one table.
func readConnections(c *netlink.Conn) ([]*dump.NetfilterMessage, error) {
	if count, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count"); err != nil || string(count) == "0\n" {
		return nil, nil // or it is not in this kernel
	}
	var found []*dump.NetfilterMessage
	err := list(c, conntrackType(linux.IPCTNL_MSG_CT_GET), genmsg(unix.AF_UNSPEC), func(family uint8, attributes []byte) error {
		if flags(attributes, linux.CTA_STATUS)&linux.IPS_CONFIRMED != 0 && (family == unix.AF_INET || family == unix.AF_INET6) {
			found = append(found, &dump.NetfilterMessage{
				Type: linux.IPCTNL_MSG_CT_NEW, Family: uint32(family),
				Attributes: netlink.Filter(attributes, func(a uint16) bool { return slices.Contains(kept, a) }),
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tracked connections: %w", err)
	}
	return found, nil
}

// RestoreConnections enters tracked connections. One that has come again by itself stays.
func (r *Restorer) RestoreConnections(f *dump.Firewall) error {
	for _, m := range f.GetConnections() {
		body := append(genmsg(m.Family), connection(m.Attributes)...)
		err := r.Conn.Do(conntrackType(linux.IPCTNL_MSG_CT_NEW), unix.NLM_F_CREATE|unix.NLM_F_EXCL, body)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("tracked connection: %w", err)
		}
	}
	return nil
}

// connection makes what is told of a connection what makes one.
func connection(attributes []byte) netlink.Builder {
	var b netlink.Builder
	original, reply := netlink.Find(attributes, linux.CTA_TUPLE_ORIG), netlink.Find(attributes, linux.CTA_TUPLE_REPLY)
	status := flags(attributes, linux.CTA_STATUS)
	for a := range netlink.Attributes(attributes) {
		switch a.Type {
		case linux.CTA_STATUS:
			b.Bytes(linux.CTA_STATUS, binary.BigEndian.AppendUint32(nil, status&^(linux.IPS_EXPECTED|linux.IPS_OFFLOAD|linux.IPS_HW_OFFLOAD)))
		case linux.CTA_PROTOINFO:
			b.Nest(linux.CTA_PROTOINFO, func(b *netlink.Builder) { protocol(b, a.Value) })
		case linux.CTA_TUPLE_REPLY:
			if status&(linux.IPS_SRC_NAT|linux.IPS_DST_NAT) == 0 {
				b.Raw(a)
				continue
			}
			// The kernel translates addresses by itself: it is given what comes back without that, and what is to become of it.
			b.Nest(linux.CTA_TUPLE_REPLY, func(b *netlink.Builder) { invert(b, original, reply) })
			if status&linux.IPS_DST_NAT != 0 {
				b.Nest(linux.CTA_NAT_DST, func(b *netlink.Builder) { translate(b, reply, 0) })
			}
			if status&linux.IPS_SRC_NAT != 0 {
				b.Nest(linux.CTA_NAT_SRC, func(b *netlink.Builder) { translate(b, reply, 1) })
			}
		default:
			b.Raw(a)
		}
	}
	return b
}

// protocol lets the kernel pass over the windows of TCP, which it does not tell.
func protocol(b *netlink.Builder, info []byte) {
	for a := range netlink.Attributes(info) {
		if a.Type != linux.CTA_PROTOINFO_TCP {
			b.Raw(a)
			continue
		}
		b.Nest(linux.CTA_PROTOINFO_TCP, func(b *netlink.Builder) {
			for t := range netlink.Attributes(a.Value) {
				if flagged := t.Type == linux.CTA_PROTOINFO_TCP_FLAGS_ORIGINAL || t.Type == linux.CTA_PROTOINFO_TCP_FLAGS_REPLY; flagged && len(t.Value) == 2 {
					flags := t.Value[0] | linux.IP_CT_TCP_FLAG_BE_LIBERAL // struct nf_ct_tcp_flags: flags, mask
					b.Bytes(t.Type, []byte{flags, flags})
				} else {
					b.Raw(t)
				}
			}
		})
	}
}

// invert adds the tuple of the answers to an original one. Types of ICMP are those of the reply.
func invert(b *netlink.Builder, original, reply []byte) {
	other := map[uint16]uint16{
		linux.CTA_IP_V4_SRC: linux.CTA_IP_V4_DST, linux.CTA_IP_V4_DST: linux.CTA_IP_V4_SRC,
		linux.CTA_IP_V6_SRC: linux.CTA_IP_V6_DST, linux.CTA_IP_V6_DST: linux.CTA_IP_V6_SRC,
	}
	b.Nest(linux.CTA_TUPLE_IP, func(b *netlink.Builder) {
		for a := range netlink.Attributes(netlink.Find(original, linux.CTA_TUPLE_IP)) {
			b.Bytes(other[a.Type], a.Value)
		}
	})
	from := netlink.Find(original, linux.CTA_TUPLE_PROTO)
	b.Nest(linux.CTA_TUPLE_PROTO, func(b *netlink.Builder) {
		for a := range netlink.Attributes(netlink.Find(reply, linux.CTA_TUPLE_PROTO)) {
			switch a.Type {
			case linux.CTA_PROTO_SRC_PORT:
				b.Bytes(a.Type, netlink.Find(from, linux.CTA_PROTO_DST_PORT))
			case linux.CTA_PROTO_DST_PORT:
				b.Bytes(a.Type, netlink.Find(from, linux.CTA_PROTO_SRC_PORT))
			case linux.CTA_PROTO_ICMP_ID, linux.CTA_PROTO_ICMPV6_ID:
				b.Bytes(a.Type, netlink.Find(from, a.Type))
			default:
				b.Raw(a)
			}
		}
	})
}

// translate adds the range of one address and port that a translation leads to: where answers come from (0), or go to (1).
func translate(b *netlink.Builder, reply []byte, end uint16) {
	ip, ports := netlink.Find(reply, linux.CTA_TUPLE_IP), netlink.Find(reply, linux.CTA_TUPLE_PROTO)
	if v4 := netlink.Find(ip, linux.CTA_IP_V4_SRC+end); v4 != nil {
		b.Bytes(linux.CTA_NAT_V4_MINIP, v4)
		b.Bytes(linux.CTA_NAT_V4_MAXIP, v4)
	} else {
		b.Bytes(linux.CTA_NAT_V6_MINIP, netlink.Find(ip, linux.CTA_IP_V6_SRC+end))
		b.Bytes(linux.CTA_NAT_V6_MAXIP, netlink.Find(ip, linux.CTA_IP_V6_SRC+end))
	}
	for _, kind := range []uint16{linux.CTA_PROTO_SRC_PORT + end, linux.CTA_PROTO_ICMP_ID, linux.CTA_PROTO_ICMPV6_ID} {
		if port := netlink.Find(ports, kind); port != nil {
			b.Nest(linux.CTA_NAT_PROTO, func(b *netlink.Builder) {
				b.Bytes(linux.CTA_PROTONAT_PORT_MIN, port)
				b.Bytes(linux.CTA_PROTONAT_PORT_MAX, port)
			})
			return
		}
	}
}
