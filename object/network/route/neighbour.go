package route

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/linux"
	"vps/object/network/netlink"
)

// neighbourFlags are those that somebody sets.
const neighbourFlags = unix.NTF_SELF | unix.NTF_MASTER | unix.NTF_PROXY | unix.NTF_EXT_LEARNED | linux.NTF_STICKY | unix.NTF_ROUTER

// Neighbours lists those that somebody has entered: permanent ones, those whose addresses the instance answers for, and
// the entries of bridges.
func (t *Table) Neighbours() ([]*dump.Neighbour, []error) {
	var all []*dump.Neighbour
	var refusals []error
	for _, head := range []linux.Ndmsg{{}, {Flags: unix.NTF_PROXY}, {Family: unix.AF_BRIDGE}} {
		list, bad := read(t.Conn, unix.RTM_GETNEIGH, "neighbours", neighbourHead(head), func(body []byte) (*dump.Neighbour, error) {
			return decodeNeighbour(body, head.Family == unix.AF_BRIDGE)
		})
		all, refusals = append(all, list...), append(refusals, bad...)
	}
	return all, refusals
}

func neighbourHead(head linux.Ndmsg) netlink.Builder {
	return append(netlink.Builder(nil), (*[unsafe.Sizeof(head)]byte)(unsafe.Pointer(&head))[:]...)
}

func decodeNeighbour(body []byte, bridges bool) (*dump.Neighbour, error) {
	const size = int(unsafe.Sizeof(linux.Ndmsg{}))
	if len(body) < size {
		return nil, nil
	}
	head := (*linux.Ndmsg)(unsafe.Pointer(&body[0]))
	n := &dump.Neighbour{
		Family: uint32(head.Family), Interface: uint32(head.Ifindex), State: uint32(head.State), Flags: uint32(head.Flags) & neighbourFlags,
	}
	if head.State&unix.NUD_PERMANENT == 0 && head.Flags&unix.NTF_PROXY == 0 && !(bridges && head.State&unix.NUD_NOARP != 0) {
		return nil, nil
	}
	if n.Family != unix.AF_INET && n.Family != unix.AF_INET6 && n.Family != unix.AF_BRIDGE || bridges != (n.Family == unix.AF_BRIDGE) {
		return nil, nil
	}
	for a := range netlink.Attributes(body[size:]) {
		switch a.Type {
		case unix.NDA_DST:
			n.Destination = a.Bytes()
		case unix.NDA_LLADDR:
			n.Address = a.Bytes()
		case unix.NDA_VLAN:
			n.Vlan = a.Uint32()
		case unix.NDA_MASTER:
			n.Master = a.Uint32()
		case linux.NDA_PROTOCOL:
			n.Protocol = a.Uint32()
		case linux.NDA_FLAGS_EXT:
			n.Flags |= a.Uint32() << 8
		case unix.NDA_VNI, unix.NDA_SRC_VNI, linux.NDA_NH_ID:
			return nil, refusal("neighbour %x of a tunnel", n.Address)
		}
	}
	if bridges && n.Master == 0 && n.Flags&unix.NTF_MASTER == 0 && len(n.Address) == 6 && n.Address[0]&1 != 0 {
		return nil, nil // groups that an interface listens to
	}
	if head.Flags&unix.NTF_PROXY != 0 {
		n.State = 0
	}
	return n, nil
}

func encodeNeighbour(n *dump.Neighbour, index uint32) []byte {
	b := neighbourHead(linux.Ndmsg{Family: uint8(n.Family), Ifindex: int32(index), State: uint16(n.State), Flags: uint8(n.Flags)})
	b.Some(unix.NDA_DST, n.Destination)
	b.Some(unix.NDA_LLADDR, n.Address)
	if n.Vlan != 0 {
		b.Uint16(unix.NDA_VLAN, n.Vlan)
	}
	if n.Protocol != 0 {
		b.Uint8(linux.NDA_PROTOCOL, n.Protocol)
	}
	b.SomeUint32(linux.NDA_FLAGS_EXT, n.Flags>>8)
	return b
}

// CheckNeighbours refuses records that make no sense.
func CheckNeighbours(list []*dump.Neighbour) error {
	if len(list) > maxObjects {
		return fmt.Errorf("%d neighbours", len(list))
	}
	for _, n := range list {
		if len(n.Destination) > 16 || len(n.Address) > 32 || n.State > math.MaxUint16 || n.Family > math.MaxUint8 || n.Vlan > math.MaxUint16 {
			return fmt.Errorf("neighbour %s is not valid", show(n.Destination))
		}
	}
	return nil
}

// RestoreNeighbours enters those that are not here. Entries of the kernel's own, for addresses of interfaces, are here.
func (t *Table) RestoreNeighbours(want []*dump.Neighbour) error {
	have, refusals := t.Neighbours()
	if len(refusals) > 0 {
		return refusals[0]
	}
	here := make([]*dump.Neighbour, len(want))
	for k, n := range want {
		here[k] = proto.CloneOf(n)
		var err, merr error
		here[k].Interface, err = t.Index(n.Interface)
		here[k].Master, merr = t.Index(n.Master)
		if err != nil || merr != nil {
			return fmt.Errorf("neighbour %s: %w", show(n.Destination), errors.Join(err, merr))
		}
	}
	for _, n := range difference(here, have) {
		if n.Family == unix.AF_BRIDGE && n.Flags&unix.NTF_SELF == 0 {
			n.Flags |= unix.NTF_MASTER
		}
		if err := t.Conn.Do(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, encodeNeighbour(n, n.Interface)); err != nil {
			return fmt.Errorf("neighbour %s (%x): %w", show(n.Destination), n.Address, err)
		}
	}
	return nil
}
