package route

import (
	"cmp"
	"encoding/binary"
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

// Nexthops lists the next hops that routes can share, and their groups (ip-nexthop(8)).
func (t *Table) Nexthops() ([]*dump.Nexthop, []error) {
	return read(t.Conn, unix.RTM_GETNEXTHOP, "next hops", nexthopHead(linux.Nhmsg{}), decodeNexthop)
}

func nexthopHead(head linux.Nhmsg) netlink.Builder {
	return append(netlink.Builder(nil), (*[unsafe.Sizeof(head)]byte)(unsafe.Pointer(&head))[:]...)
}

func decodeNexthop(body []byte) (*dump.Nexthop, error) {
	const size = int(unsafe.Sizeof(linux.Nhmsg{}))
	if len(body) < size {
		return nil, nil
	}
	head := (*linux.Nhmsg)(unsafe.Pointer(&body[0]))
	n := &dump.Nexthop{Family: uint32(head.Family), Scope: uint32(head.Scope), Protocol: uint32(head.Protocol), Flags: head.Flags & hopFlags}
	odd := ""
	for a := range netlink.Attributes(body[size:]) {
		switch a.Type {
		case unix.NHA_ID:
			n.Id = a.Uint32()
		case unix.NHA_OIF:
			n.Interface = a.Uint32()
		case unix.NHA_GATEWAY:
			n.Gateway = a.Bytes()
		case unix.NHA_BLACKHOLE:
			n.Blackhole = true
		case linux.NHA_FDB:
			n.Fdb = true
		case unix.NHA_GROUP_TYPE:
			if n.GroupType = a.Uint32(); n.GroupType != 0 {
				odd = "a resilient group"
			}
		case unix.NHA_GROUP: // struct nexthop_grp[]
			const size = 8
			for v := a.Value; len(v) >= size; v = v[size:] {
				n.Members = append(n.Members, &dump.NexthopMember{
					Id: binary.NativeEndian.Uint32(v), Weight: uint32(v[4]) + uint32(v[5])<<8 + 1,
				})
			}
		case linux.NHA_OP_FLAGS, linux.NHA_GROUP_STATS, linux.NHA_HW_STATS_ENABLE, linux.NHA_HW_STATS_USED:
		default:
			odd = fmt.Sprintf("attribute %d", a.Type)
		}
	}
	if odd != "" {
		return nil, refusal("next hop %d (%s)", n.Id, odd)
	}
	return n, nil
}

func encodeNexthop(n *dump.Nexthop) []byte {
	b := nexthopHead(linux.Nhmsg{Family: uint8(n.Family), Protocol: uint8(n.Protocol), Flags: n.Flags})
	b.Uint32(unix.NHA_ID, n.Id)
	b.SomeUint32(unix.NHA_OIF, n.Interface)
	b.Some(unix.NHA_GATEWAY, n.Gateway)
	if n.Blackhole {
		b.Bytes(unix.NHA_BLACKHOLE, nil)
	}
	if n.Fdb {
		b.Bytes(linux.NHA_FDB, nil)
	}
	var members []byte
	for _, m := range n.Members {
		weight := max(m.Weight, 1) - 1
		members = binary.NativeEndian.AppendUint32(members, m.Id)
		members = append(members, byte(weight), byte(weight>>8), 0, 0)
	}
	b.Some(unix.NHA_GROUP, members)
	return b
}

// CheckNexthops refuses records that make no sense.
func CheckNexthops(list []*dump.Nexthop) error {
	if len(list) > maxObjects {
		return fmt.Errorf("%d next hops", len(list))
	}
	for _, n := range list {
		bad := n.Id == 0 || len(n.Gateway) > 0 && !isAddress(n.Gateway, n.Family) || len(n.Members) > 1024 || max(n.Family, n.Protocol) > math.MaxUint8
		for _, m := range n.Members {
			bad = bad || m.Weight > math.MaxUint16+1
		}
		if bad {
			return fmt.Errorf("next hop %d is not valid", n.Id)
		}
	}
	return nil
}

// RestoreNexthops makes the next hops, groups after the others.
func (t *Table) RestoreNexthops(want []*dump.Nexthop) error {
	list := slices.Clone(want)
	slices.SortStableFunc(list, func(a, b *dump.Nexthop) int { return cmp.Compare(len(a.Members), len(b.Members)) })
	for _, n := range list {
		n = proto.CloneOf(n)
		var err error
		if n.Interface, err = t.Index(n.Interface); err == nil {
			err = t.Conn.Do(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL, encodeNexthop(n))
		}
		if err != nil {
			return fmt.Errorf("next hop %d: %w", n.Id, err)
		}
	}
	return nil
}
