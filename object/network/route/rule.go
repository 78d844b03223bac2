package route

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object/network/netlink"
)

// Rules lists the rules that say which table is asked (ip-rule(8)).
func (t *Table) Rules() ([]*dump.RoutingRule, []error) {
	var all []*dump.RoutingRule
	var refusals []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, bad := read(t.Conn, unix.RTM_GETRULE, "routing rules", routeHead(unix.RtMsg{Family: family}), t.decodeRule)
		all, refusals = append(all, list...), append(refusals, bad...)
	}
	if len(all) > maxRules {
		refusals = append(refusals, refusal("network of %d routing rules", len(all)))
	}
	return all, refusals
}

// decodeRule makes a record of a message: struct fib_rule_hdr, which is laid out as struct rtmsg.
func (t *Table) decodeRule(body []byte) (*dump.RoutingRule, error) {
	if len(body) < unix.SizeofRtMsg {
		return nil, nil
	}
	head := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	if head.Family != unix.AF_INET && head.Family != unix.AF_INET6 {
		return nil, nil
	}
	r := &dump.RoutingRule{
		Family: uint32(head.Family), DestinationPrefix: uint32(head.Dst_len), SourcePrefix: uint32(head.Src_len), Tos: uint32(head.Tos),
		Table: uint32(head.Table), Action: uint32(head.Type), Flags: head.Flags &^ (unix.FIB_RULE_UNRESOLVED | unix.FIB_RULE_IIF_DETACHED | unix.FIB_RULE_OIF_DETACHED),
	}
	var odd error
	for a := range netlink.Attributes(body[unix.SizeofRtMsg:]) {
		switch a.Type {
		case unix.FRA_SRC:
			r.Source = a.Bytes()
		case unix.FRA_DST:
			r.Destination = a.Bytes()
		case unix.FRA_TABLE:
			r.Table = a.Uint32()
		case unix.FRA_PRIORITY:
			r.Priority = a.Uint32()
		case unix.FRA_GOTO:
			r.Goto = proto.Uint32(a.Uint32())
		case unix.FRA_FWMARK:
			r.Mark = a.Uint32()
		case unix.FRA_FWMASK:
			r.MarkMask = a.Uint32()
		case unix.FRA_IIFNAME:
			r.Input = a.Text()
		case unix.FRA_OIFNAME:
			r.Output = a.Text()
		case unix.FRA_SUPPRESS_IFGROUP:
			if v := a.Uint32(); v != math.MaxUint32 {
				r.SuppressGroup = proto.Uint32(v)
			}
		case unix.FRA_SUPPRESS_PREFIXLEN:
			if v := a.Uint32(); v != math.MaxUint32 {
				r.SuppressPrefix = proto.Uint32(v)
			}
		case unix.FRA_FLOW:
			r.Realms = a.Uint32()
		case unix.FRA_UID_RANGE:
			r.Users, odd = t.users(a.Value)
		case unix.FRA_IP_PROTO:
			r.IpProtocol = a.Uint32()
		case unix.FRA_SPORT_RANGE:
			r.SourcePorts = a.Uint32()
		case unix.FRA_DPORT_RANGE:
			r.DestinationPorts = a.Uint32()
		case unix.FRA_L3MDEV:
			r.L3Mdev = a.Uint32() != 0
		case unix.FRA_PROTOCOL:
			r.Protocol = a.Uint32()
		case unix.FRA_TUN_ID:
			if len(a.Value) == 8 {
				r.Tunnel = binary.BigEndian.Uint64(a.Value)
			}
		case unix.FRA_PAD:
		default:
			odd = fmt.Errorf("attribute %d", a.Type)
		}
	}
	if odd != nil {
		return nil, fmt.Errorf("%w (%w)", refusal("routing rule %d", r.Priority), odd)
	}
	return r, nil
}

// users reads struct fib_rule_uid_range: ids of ours.
func (t *Table) users(value []byte) (*dump.UserRange, error) {
	if len(value) != 8 {
		return nil, fmt.Errorf("user range of %d bytes", len(value))
	}
	first, err := t.IDs.UID(binary.NativeEndian.Uint32(value))
	if err != nil {
		return nil, err
	}
	last, err := t.IDs.UID(binary.NativeEndian.Uint32(value[4:]))
	return &dump.UserRange{First: first, Last: last}, err
}

func encodeRule(r *dump.RoutingRule) []byte {
	head := unix.RtMsg{
		Family: uint8(r.Family), Dst_len: uint8(r.DestinationPrefix), Src_len: uint8(r.SourcePrefix), Tos: uint8(r.Tos),
		Type: uint8(r.Action), Flags: r.Flags,
	}
	b := routeHead(head)
	b.Some(unix.FRA_SRC, r.Source)
	b.Some(unix.FRA_DST, r.Destination)
	b.Uint32(unix.FRA_TABLE, r.Table)
	b.Uint32(unix.FRA_PRIORITY, r.Priority)
	if r.Goto != nil {
		b.Uint32(unix.FRA_GOTO, r.GetGoto())
	}
	if r.Mark != 0 || r.MarkMask != 0 {
		b.Uint32(unix.FRA_FWMARK, r.Mark)
		b.Uint32(unix.FRA_FWMASK, r.MarkMask)
	}
	b.String(unix.FRA_IIFNAME, r.Input)
	b.String(unix.FRA_OIFNAME, r.Output)
	if r.SuppressGroup != nil {
		b.Uint32(unix.FRA_SUPPRESS_IFGROUP, r.GetSuppressGroup())
	}
	if r.SuppressPrefix != nil {
		b.Uint32(unix.FRA_SUPPRESS_PREFIXLEN, r.GetSuppressPrefix())
	}
	b.SomeUint32(unix.FRA_FLOW, r.Realms)
	if u := r.Users; u != nil {
		b.Bytes(unix.FRA_UID_RANGE, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, u.First), u.Last))
	}
	if r.IpProtocol != 0 {
		b.Uint8(unix.FRA_IP_PROTO, r.IpProtocol)
	}
	b.SomeUint32(unix.FRA_SPORT_RANGE, r.SourcePorts)
	b.SomeUint32(unix.FRA_DPORT_RANGE, r.DestinationPorts)
	if r.L3Mdev {
		b.Uint8(unix.FRA_L3MDEV, 1)
	}
	b.Uint8(unix.FRA_PROTOCOL, r.Protocol)
	if r.Tunnel != 0 {
		b.Bytes(unix.FRA_TUN_ID, binary.BigEndian.AppendUint64(nil, r.Tunnel))
	}
	return b
}

// CheckRules refuses records that make no sense.
func CheckRules(list []*dump.RoutingRule) error {
	if len(list) > maxRules {
		return fmt.Errorf("network of %d routing rules", len(list))
	}
	for _, r := range list {
		if r.Family != unix.AF_INET && r.Family != unix.AF_INET6 || !isAddress(r.Source, r.Family) || !isAddress(r.Destination, r.Family) ||
			max(r.SourcePrefix, r.DestinationPrefix) > 128 || max(r.Tos, r.Action, r.Protocol, r.IpProtocol) > math.MaxUint8 ||
			len(r.Input) >= unix.IFNAMSIZ || len(r.Output) >= unix.IFNAMSIZ {
			return fmt.Errorf("routing rule %d is not valid", r.Priority)
		}
	}
	return nil
}

// RestoreRules makes the rules equal to the records.
func (t *Table) RestoreRules(want []*dump.RoutingRule) error {
	have, refusals := t.Rules()
	if len(refusals) > 0 {
		return refusals[0]
	}
	for _, change := range []struct {
		what        string
		kind, flags uint16
		rules       []*dump.RoutingRule
	}{
		{"add", unix.RTM_NEWRULE, unix.NLM_F_CREATE, difference(want, have)},
		{"remove", unix.RTM_DELRULE, 0, difference(have, want)},
	} {
		for _, r := range change.rules {
			body := encodeRule(r)
			err := error(nil)
			if r.Users != nil { // the kernel takes such rules from users of the namespace's own only
				err = t.Conn.DoBy(t.Send, change.kind, change.flags, body)
			} else {
				err = t.Conn.Do(change.kind, change.flags, body)
			}
			if err != nil {
				return fmt.Errorf("%s routing rule %d: %w", change.what, r.Priority, err)
			}
		}
	}
	return nil
}
