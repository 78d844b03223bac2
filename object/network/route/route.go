package route

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/linux"
	"vps/object/network/netlink"
)

// hopFlags are the flags of a hop that somebody sets; the others are about the state of its interface.
const hopFlags = unix.RTNH_F_PERVASIVE | unix.RTNH_F_ONLINK

// Routes lists the routes of all tables but those that the kernel makes for addresses: to itself, broadcast and multicast.
func (t *Table) Routes() ([]*dump.Route, []error) {
	var all []*dump.Route
	var refusals []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, bad := read(t.Conn, unix.RTM_GETROUTE, "routes", routeHead(unix.RtMsg{Family: family}), t.decodeRoute)
		all, refusals = append(all, list...), append(refusals, bad...)
	}
	if len(all) > maxObjects {
		refusals = append(refusals, refusal("network of %d routes", len(all)))
	}
	return all, refusals
}

func routeHead(head unix.RtMsg) netlink.Builder {
	return append(netlink.Builder(nil), (*[unix.SizeofRtMsg]byte)(unsafe.Pointer(&head))[:]...)
}

// decodeRoute makes a record of a message.
func (t *Table) decodeRoute(body []byte) (*dump.Route, error) {
	if len(body) < unix.SizeofRtMsg {
		return nil, nil
	}
	head := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	own := head.Protocol == unix.RTPROT_KERNEL && (head.Type == unix.RTN_LOCAL || head.Type == unix.RTN_BROADCAST ||
		head.Type == unix.RTN_ANYCAST || head.Type == unix.RTN_MULTICAST)
	if own || head.Flags&unix.RTM_F_CLONED != 0 || head.Family != unix.AF_INET && head.Family != unix.AF_INET6 {
		return nil, nil
	}
	r := &dump.Route{
		Family: uint32(head.Family), Prefix: uint32(head.Dst_len), SourcePrefix: uint32(head.Src_len), Table: uint32(head.Table),
		Type: uint32(head.Type), Protocol: uint32(head.Protocol), Scope: uint32(head.Scope), Tos: uint32(head.Tos),
	}
	hop := &dump.RouteHop{Flags: head.Flags & hopFlags}
	var odd error
	for a := range netlink.Attributes(body[unix.SizeofRtMsg:]) {
		switch a.Type {
		case unix.RTA_DST:
			r.Destination = a.Bytes()
		case unix.RTA_SRC:
			r.Source = a.Bytes()
		case unix.RTA_TABLE:
			r.Table = a.Uint32()
		case unix.RTA_PRIORITY:
			r.Priority = a.Uint32()
		case unix.RTA_PREFSRC:
			r.PreferredSource = a.Bytes()
		case unix.RTA_PREF:
			r.Preference = a.Uint32()
		case linux.RTA_NH_ID:
			r.Nexthop = a.Uint32()
		case unix.RTA_CACHEINFO:
			if info := (*linux.RtaCacheinfo)(unsafe.Pointer(unsafe.SliceData(a.Value))); len(a.Value) >= int(unsafe.Sizeof(*info)) && info.Expires > 0 {
				const userHZ = 100
				r.Expires = max(uint32(info.Expires)/userHZ, 1)
			}
		case unix.RTA_METRICS:
			for m := range netlink.Attributes(a.Value) {
				metric := &dump.RouteMetric{Metric: uint32(m.Type), Value: m.Uint32()}
				if m.Type == unix.RTAX_CC_ALGO {
					metric.Value, metric.Name = 0, m.Text()
				}
				r.Metrics = append(r.Metrics, metric)
			}
		case unix.RTA_MULTIPATH:
			r.Hops = decodeHops(a.Value, &odd)
		case unix.RTA_IIF, unix.RTA_MARK, unix.RTA_UID: // of answers about one packet only
		default:
			decodeHop(hop, a, &odd)
		}
	}
	name := "network route to " + prefix(r.Destination, r.Prefix)
	if odd != nil {
		return nil, fmt.Errorf("%w (%w)", refusal("%s", name), odd)
	}
	if r.Nexthop != 0 {
		r.Hops = nil
	} else if len(r.Hops) == 0 && (hop.Interface != 0 || hop.Gateway != nil) {
		r.Hops = []*dump.RouteHop{hop}
	}
	return r, nil
}

// decodeHop takes an attribute of a hop.
func decodeHop(h *dump.RouteHop, a netlink.Attribute, odd *error) {
	switch a.Type {
	case unix.RTA_OIF:
		h.Interface = a.Uint32()
	case unix.RTA_GATEWAY:
		h.Gateway = a.Bytes()
	case unix.RTA_VIA: // struct rtvia
		if len(a.Value) > 2 {
			h.Gateway = append([]byte(nil), a.Value[2:]...)
		}
	case unix.RTA_FLOW:
		h.Realms = a.Uint32()
	case unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE:
		*odd = errors.New("it encapsulates")
	default:
		*odd = fmt.Errorf("attribute %d", a.Type)
	}
}

// decodeHops reads struct rtnexthop[].
func decodeHops(data []byte, odd *error) []*dump.RouteHop {
	var list []*dump.RouteHop
	for len(data) >= unix.SizeofRtNexthop {
		n := (*unix.RtNexthop)(unsafe.Pointer(&data[0]))
		if n.Len < unix.SizeofRtNexthop || int(n.Len) > len(data) {
			break
		}
		h := &dump.RouteHop{Interface: uint32(n.Ifindex), Flags: uint32(n.Flags) & hopFlags, Weight: uint32(n.Hops) + 1}
		for a := range netlink.Attributes(data[unix.SizeofRtNexthop:n.Len]) {
			decodeHop(h, a, odd)
		}
		list = append(list, h)
		data = data[min(len(data), int(n.Len+3)&^3):]
	}
	return list
}

// encodeRoute is the body of a message about a route.
func encodeRoute(r *dump.Route) []byte {
	head := unix.RtMsg{
		Family: uint8(r.Family), Dst_len: uint8(r.Prefix), Src_len: uint8(r.SourcePrefix), Tos: uint8(r.Tos), Table: uint8(min(r.Table, math.MaxUint8)),
		Protocol: uint8(r.Protocol), Scope: uint8(r.Scope), Type: uint8(r.Type),
	}
	if r.Table > math.MaxUint8 {
		head.Table = unix.RT_TABLE_UNSPEC
	}
	single := len(r.Hops) == 1 && r.Hops[0].Weight == 0
	if single {
		head.Flags = r.Hops[0].Flags
	}
	b := routeHead(head)
	b.Uint32(unix.RTA_TABLE, r.Table)
	b.Some(unix.RTA_DST, r.Destination)
	b.Some(unix.RTA_SRC, r.Source)
	b.SomeUint32(unix.RTA_PRIORITY, r.Priority)
	b.Some(unix.RTA_PREFSRC, r.PreferredSource)
	if r.Preference != 0 {
		b.Uint8(unix.RTA_PREF, r.Preference)
	}
	b.SomeUint32(linux.RTA_NH_ID, r.Nexthop)
	b.SomeUint32(unix.RTA_EXPIRES, r.Expires)
	if len(r.Metrics) > 0 {
		b.Nest(unix.RTA_METRICS, func(b *netlink.Builder) {
			for _, m := range r.Metrics {
				if m.Name != "" {
					b.String(uint16(m.Metric), m.Name)
				} else {
					b.Uint32(uint16(m.Metric), m.Value)
				}
			}
		})
	}
	switch {
	case single:
		encodeHop(&b, r.Family, r.Hops[0])
		b.SomeUint32(unix.RTA_OIF, r.Hops[0].Interface)
	case len(r.Hops) > 0:
		b.Nest(unix.RTA_MULTIPATH, func(b *netlink.Builder) {
			for _, h := range r.Hops {
				var in netlink.Builder
				encodeHop(&in, r.Family, h)
				n := unix.RtNexthop{
					Len: uint16(unix.SizeofRtNexthop + len(in)), Flags: uint8(h.Flags), Hops: uint8(max(h.Weight, 1) - 1), Ifindex: int32(h.Interface),
				}
				*b = append(append(*b, (*[unix.SizeofRtNexthop]byte)(unsafe.Pointer(&n))[:]...), in...)
			}
		})
	}
	return b
}

func encodeHop(b *netlink.Builder, routes uint32, h *dump.RouteHop) {
	if f := family(h.Gateway); len(h.Gateway) > 0 && f != routes {
		b.Bytes(unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, uint16(f)), h.Gateway...))
	} else {
		b.Some(unix.RTA_GATEWAY, h.Gateway)
	}
	b.SomeUint32(unix.RTA_FLOW, h.Realms)
}

// CheckRoutes refuses records that make no sense.
func CheckRoutes(list []*dump.Route) error {
	if len(list) > maxObjects {
		return fmt.Errorf("%d routes", len(list))
	}
	for _, r := range list {
		bits := uint32(128)
		if r.Family == unix.AF_INET {
			bits = 32
		}
		bad := r.Family != unix.AF_INET && r.Family != unix.AF_INET6 || !isAddress(r.Destination, r.Family) || !isAddress(r.Source, r.Family) ||
			!isAddress(r.PreferredSource, r.Family) || r.Prefix > bits || r.SourcePrefix > bits || len(r.Hops) > 1024 || len(r.Metrics) > 32 ||
			max(r.Type, r.Protocol, r.Scope, r.Tos, r.Preference) > math.MaxUint8
		for _, h := range r.Hops {
			bad = bad || len(h.Gateway) > 0 && !isAddress(h.Gateway, family(h.Gateway)) || h.Weight > 256 || h.Flags > math.MaxUint8
		}
		for _, m := range r.Metrics {
			bad = bad || m.Metric > unix.RTAX_MAX || len(m.Name) > 16
		}
		if bad {
			return fmt.Errorf("route to %s is not valid", prefix(r.Destination, r.Prefix))
		}
	}
	return nil
}

// RestoreRoutes makes the routes equal to the records. Those that need others, by which their gateways are reached, come later.
func (t *Table) RestoreRoutes(want []*dump.Route) error {
	have, refusals := t.Routes()
	if len(refusals) > 0 {
		return refusals[0]
	}
	here := make([]*dump.Route, len(want))
	for k, r := range want {
		here[k] = proto.CloneOf(r)
		for _, h := range here[k].Hops {
			var err error
			if h.Interface, err = t.Index(h.Interface); err != nil {
				return fmt.Errorf("route to %s: %w", prefix(r.Destination, r.Prefix), err)
			}
		}
	}
	for _, r := range difference(have, here) {
		if err := t.Conn.Do(unix.RTM_DELROUTE, 0, encodeRoute(r)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %s: %w", prefix(r.Destination, r.Prefix), err)
		}
	}
	left := difference(here, have)
	slices.SortStableFunc(left, func(a, b *dump.Route) int { return -cmp.Compare(a.Scope, b.Scope) })
	for len(left) > 0 {
		before, first := len(left), error(nil)
		left = slices.DeleteFunc(left, func(r *dump.Route) bool {
			flags := uint16(unix.NLM_F_CREATE)
			if r.Family == unix.AF_INET {
				flags |= unix.NLM_F_APPEND
			}
			err := t.Conn.Do(unix.RTM_NEWROUTE, flags, encodeRoute(r))
			if err != nil && first == nil {
				first = fmt.Errorf("route to %s: %w", prefix(r.Destination, r.Prefix), err)
			}
			return err == nil
		})
		if len(left) == before {
			return first
		}
	}
	return nil
}
