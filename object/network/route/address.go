package route

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/linux"
	"vps/object/network/netlink"
)

// lasting are the flags of an address that somebody sets, and IFA_F_TENTATIVE: the kernel still looks at whether it is somebody else's.
const lasting = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_PERMANENT | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE |
	unix.IFA_F_MCAUTOJOIN | unix.IFA_F_TENTATIVE

// Addresses lists the addresses of all interfaces.
func (t *Table) Addresses() ([]*dump.InterfaceAddress, []error) {
	return read(t.Conn, unix.RTM_GETADDR, "addresses", make([]byte, unix.SizeofIfAddrmsg), decodeAddress)
}

func decodeAddress(body []byte) (*dump.InterfaceAddress, error) {
	if len(body) < unix.SizeofIfAddrmsg {
		return nil, nil
	}
	head := (*unix.IfAddrmsg)(unsafe.Pointer(&body[0]))
	a := &dump.InterfaceAddress{Interface: head.Index, Prefix: uint32(head.Prefixlen), Scope: uint32(head.Scope), Flags: uint32(head.Flags)}
	for at := range netlink.Attributes(body[unix.SizeofIfAddrmsg:]) {
		switch at.Type {
		case unix.IFA_ADDRESS:
			a.Address = at.Bytes()
		case unix.IFA_LOCAL:
			a.Local = at.Bytes()
		case unix.IFA_BROADCAST:
			a.Broadcast = at.Bytes()
		case unix.IFA_LABEL:
			a.Label = at.Text()
		case unix.IFA_FLAGS:
			a.Flags = at.Uint32()
		case unix.IFA_RT_PRIORITY:
			a.Metric = at.Uint32()
		case linux.IFA_PROTO:
			a.Protocol = at.Uint32()
		case unix.IFA_CACHEINFO:
			if info := (*linux.IfaCacheinfo)(unsafe.Pointer(unsafe.SliceData(at.Value))); len(at.Value) >= int(unsafe.Sizeof(*info)) {
				if info.Valid != math.MaxUint32 {
					a.Valid = max(info.Valid, 1)
				}
				if info.Prefered != math.MaxUint32 {
					a.Preferred = proto.Uint32(info.Prefered)
				}
			}
		}
	}
	if a.Local == nil {
		a.Local, a.Address = a.Address, nil
	}
	if string(a.Local) == string(a.Address) {
		a.Address = nil
	}
	if a.Flags&unix.IFA_F_DADFAILED != 0 {
		return nil, refusal("network address %s, which somebody else has too (dadfailed),", prefix(a.Local, a.Prefix))
	}
	a.Flags &= lasting
	return a, nil
}

// encodeAddress is the body of a message about an address.
func encodeAddress(a *dump.InterfaceAddress, index uint32) []byte {
	head := unix.IfAddrmsg{
		Family: uint8(family(a.Local)), Prefixlen: uint8(a.Prefix), Scope: uint8(a.Scope), Index: index, Flags: uint8(a.Flags),
	}
	b := netlink.Builder((*[unix.SizeofIfAddrmsg]byte)(unsafe.Pointer(&head))[:])
	b.Bytes(unix.IFA_LOCAL, a.Local)
	if a.Address != nil {
		b.Bytes(unix.IFA_ADDRESS, a.Address)
	} else {
		b.Bytes(unix.IFA_ADDRESS, a.Local)
	}
	b.Some(unix.IFA_BROADCAST, a.Broadcast)
	b.String(unix.IFA_LABEL, a.Label)
	b.Uint32(unix.IFA_FLAGS, a.Flags)
	b.SomeUint32(unix.IFA_RT_PRIORITY, a.Metric)
	if a.Protocol != 0 {
		b.Uint8(linux.IFA_PROTO, a.Protocol)
	}
	if a.Valid != 0 || a.Preferred != nil {
		info := linux.IfaCacheinfo{Valid: math.MaxUint32, Prefered: math.MaxUint32}
		if a.Valid != 0 {
			info.Valid = a.Valid
		}
		if a.Preferred != nil {
			info.Prefered = min(a.GetPreferred(), info.Valid)
		}
		b.Bytes(unix.IFA_CACHEINFO, (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))[:])
	}
	return b
}

// CheckAddresses refuses records that make no sense.
func CheckAddresses(list []*dump.InterfaceAddress) error {
	if len(list) > maxObjects {
		return fmt.Errorf("%d network addresses", len(list))
	}
	for _, a := range list {
		f := family(a.Local)
		if len(a.Local) == 0 || !isAddress(a.Local, f) || !isAddress(a.Address, f) || !isAddress(a.Broadcast, unix.AF_INET) ||
			int(a.Prefix) > 8*len(a.Local) || a.Scope > math.MaxUint8 || len(a.Label) >= unix.IFNAMSIZ {
			return fmt.Errorf("network address %s is not valid", prefix(a.Local, a.Prefix))
		}
	}
	return nil
}

// RestoreAddresses makes the addresses of each interface and family equal to the records: all anew if one is not.
func (t *Table) RestoreAddresses(want []*dump.InterfaceAddress) error {
	have, refusals := t.Addresses()
	if len(refusals) > 0 {
		return refusals[0]
	}
	type place struct{ index, family uint32 }
	wanted, found := make(map[place][]*dump.InterfaceAddress), make(map[place][]*dump.InterfaceAddress)
	places := make(map[place]bool)
	for _, a := range want {
		index, err := t.Index(a.Interface)
		if err != nil {
			return fmt.Errorf("network address %s: %w", prefix(a.Local, a.Prefix), err)
		}
		here := proto.CloneOf(a)
		here.Interface = index
		p := place{index, family(a.Local)}
		wanted[p], places[p] = append(wanted[p], here), true
	}
	for _, a := range have {
		p := place{a.Interface, family(a.Local)}
		found[p], places[p] = append(found[p], a), true
	}
	inOrder := func(a, b place) int { return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.family, b.family)) }
	for _, p := range slices.SortedFunc(maps.Keys(places), inOrder) {
		if sameAddresses(wanted[p], found[p]) {
			continue
		}
		for _, a := range slices.Backward(found[p]) {
			if err := t.Conn.Do(unix.RTM_DELADDR, 0, encodeAddress(a, a.Interface)); err != nil {
				return fmt.Errorf("remove network address %s: %w", prefix(a.Local, a.Prefix), err)
			}
		}
		if p.family == unix.AF_INET6 {
			slices.Reverse(wanted[p]) // the kernel puts a new one before the others of its scope
		}
		for _, a := range wanted[p] {
			if err := t.addAddress(a); err != nil {
				return fmt.Errorf("network address %s: %w", prefix(a.Local, a.Prefix), err)
			}
		}
	}
	return nil
}

// sameAddresses compares lists, but for how long the addresses live.
func sameAddresses(a, b []*dump.InterfaceAddress) bool {
	return slices.EqualFunc(a, b, func(a, b *dump.InterfaceAddress) bool {
		a, b = proto.CloneOf(a), proto.CloneOf(b)
		for _, lives := range []func(*dump.InterfaceAddress) *uint32{
			func(a *dump.InterfaceAddress) *uint32 { return &a.Valid },
			func(a *dump.InterfaceAddress) *uint32 { return a.Preferred },
		} {
			x, y := lives(a), lives(b)
			if x != nil && y != nil && cmp.Compare(*x, 0) == cmp.Compare(*y, 0) {
				*x = *y
			}
		}
		return proto.Equal(a, b)
	})
}

// addAddress adds an address. If it was known to be nobody else's, the kernel does not look again.
func (t *Table) addAddress(a *dump.InterfaceAddress) error {
	if family(a.Local) == unix.AF_INET || a.Flags&(unix.IFA_F_NODAD|unix.IFA_F_TENTATIVE) != 0 {
		return t.Conn.Do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, encodeAddress(a, a.Interface))
	}
	sure := proto.CloneOf(a)
	sure.Flags |= unix.IFA_F_NODAD
	if err := t.Conn.Do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, encodeAddress(sure, a.Interface)); err != nil {
		return err
	}
	return t.Conn.Do(unix.RTM_NEWADDR, unix.NLM_F_REPLACE, encodeAddress(a, a.Interface))
}
