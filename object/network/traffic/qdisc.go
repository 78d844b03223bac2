// Package traffic has the traffic control of a network namespace (tc(8)): queueing disciplines and their classes.
package traffic

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/network/netlink"
)

// disciplines are those whose options the kernel takes as it gives them. A function makes what it takes of what it gives.
var disciplines = map[string]func(options []byte) []byte{
	"bfifo": nil, "pfifo": nil, "fq": nil, "fq_codel": nil, "codel": nil, "sfq": nil, "prio": nil, "tbf": nil, "netem": nil, "ingress": nil, "clsact": nil,
	"htb": func(options []byte) []byte {
		var b netlink.Builder
		for a := range netlink.Attributes(options) {
			if a.Type != linux.TCA_HTB_INIT || len(a.Value) < 4 {
				b.Raw(a)
				continue
			}
			const version = 3 // struct tc_htb_glob: the kernel gives more of it than it takes
			b.Bytes(a.Type, append(binary.NativeEndian.AppendUint32(nil, version), a.Value[4:]...))
		}
		return b
	},
}

const (
	tcmSize        = int(unsafe.Sizeof(linux.Tcmsg{}))
	maxDisciplines = 1 << 16
)

// Read lists the queueing disciplines that somebody has entered on interfaces, and their classes, and names what cannot be restored.
func Read(c *netlink.Conn, interfaces []*dump.Interface) ([]*dump.Qdisc, []error) {
	var refusals []error
	refuse := func(i *dump.Interface, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		refusals = append(refusals, &object.Refusal{FD: -1, Object: fmt.Sprintf("%s of network interface %s", what, i.Name)})
	}
	list := func(kind uint16, head linux.Tcmsg, f func(head *linux.Tcmsg, q *dump.Qdisc)) {
		err := c.Dump(kind, request(head), func(m netlink.Message) error {
			if len(m.Body) < tcmSize {
				return nil
			}
			head := (*linux.Tcmsg)(unsafe.Pointer(&m.Body[0]))
			q := &dump.Qdisc{Interface: uint32(head.Ifindex), Handle: head.Handle, Parent: head.Parent}
			for a := range netlink.Attributes(m.Body[tcmSize:]) {
				switch a.Type {
				case unix.TCA_KIND:
					q.Kind = a.Text()
				case unix.TCA_OPTIONS:
					q.Options = a.Bytes()
				case unix.TCA_INGRESS_BLOCK:
					q.IngressBlock = a.Uint32()
				case unix.TCA_EGRESS_BLOCK:
					q.EgressBlock = a.Uint32()
				}
			}
			f(head, q)
			return nil
		})
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			refusals = append(refusals, fmt.Errorf("list traffic control: %w", err))
		}
	}
	var all []*dump.Qdisc
	list(unix.RTM_GETQDISC, linux.Tcmsg{}, func(head *linux.Tcmsg, q *dump.Qdisc) {
		if q.Handle != 0 { // 0: the kernel's own choice
			all = append(all, q)
		}
	})
	for _, i := range interfaces {
		var own []*dump.Qdisc
		for _, q := range all {
			if q.Interface == i.Index {
				own = append(own, q)
			}
		}
		var classes []*dump.Qdisc
		for _, q := range own {
			if _, known := disciplines[q.Kind]; !known {
				refuse(i, "queueing discipline %s", q.Kind)
			} else if q.IngressBlock != 0 || q.EgressBlock != 0 {
				refuse(i, "shared filters (block %d)", max(q.IngressBlock, q.EgressBlock))
			}
			if q.Kind != "htb" {
				continue
			}
			list(unix.RTM_GETTCLASS, linux.Tcmsg{Ifindex: int32(i.Index), Parent: q.Handle}, func(head *linux.Tcmsg, class *dump.Qdisc) {
				if class.Handle>>16 == q.Handle>>16 {
					class.Class = true
					classes = append(classes, class)
				}
			})
		}
		all = append(all, classes...)
		for _, parent := range filterPlaces(own, classes) {
			filter := ""
			list(unix.RTM_GETTFILTER, linux.Tcmsg{Ifindex: int32(i.Index), Parent: parent}, func(head *linux.Tcmsg, q *dump.Qdisc) { filter = q.Kind })
			if filter != "" {
				refuse(i, "filter %s", filter)
				break
			}
		}
	}
	return sorted(all), refusals
}

// filterPlaces are where filters can be.
func filterPlaces(own, classes []*dump.Qdisc) []uint32 {
	var places []uint32
	for _, q := range own {
		switch q.Kind {
		case "ingress", "clsact":
			places = append(places, linux.TC_H_MIN_INGRESS, linux.TC_H_MIN_EGRESS)
		default:
			places = append(places, q.Handle)
		}
	}
	for _, class := range classes {
		places = append(places, class.Handle)
	}
	return places
}

func request(head linux.Tcmsg) netlink.Builder {
	return append(netlink.Builder(nil), (*[tcmSize]byte)(unsafe.Pointer(&head))[:]...)
}

// sorted puts parents before their children.
func sorted(all []*dump.Qdisc) []*dump.Qdisc {
	type place struct{ index, handle uint32 }
	parents := make(map[place]uint32)
	for _, q := range all {
		parents[place{q.Interface, q.Handle}] = q.Parent
	}
	depth := func(q *dump.Qdisc) int {
		n := 0
		for at := q.Parent; at != linux.TC_H_ROOT && n <= len(all); n++ {
			next, ok := parents[place{q.Interface, at}]
			if !ok { // a class of a discipline whose classes come with it
				next, ok = parents[place{q.Interface, at &^ 0xffff}]
				if !ok || at&0xffff == 0 {
					break
				}
			}
			at = next
		}
		return n
	}
	slices.SortStableFunc(all, func(a, b *dump.Qdisc) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(depth(a), depth(b)))
	})
	return all
}

// Check refuses records that make no sense.
func Check(list []*dump.Qdisc) error {
	if len(list) > maxDisciplines {
		return fmt.Errorf("%d queueing disciplines", len(list))
	}
	for _, q := range list {
		if _, known := disciplines[q.Kind]; !known || q.Handle == 0 {
			return fmt.Errorf("queueing discipline %.20q", q.Kind)
		}
	}
	return nil
}

// Restore enters what differs from what is here. index gives the index that an interface has here.
func Restore(c *netlink.Conn, want []*dump.Qdisc, have []*dump.Qdisc, index func(uint32) (uint32, error)) error {
	for _, q := range want {
		here, err := index(q.Interface)
		if err != nil {
			return fmt.Errorf("queueing discipline %s: %w", q.Kind, err)
		}
		moved := proto.CloneOf(q)
		moved.Interface = here
		if slices.ContainsFunc(have, func(h *dump.Qdisc) bool { return proto.Equal(h, moved) }) {
			continue
		}
		kind, options := uint16(unix.RTM_NEWQDISC), q.Options
		switch {
		case q.Class:
			kind = unix.RTM_NEWTCLASS
		case disciplines[q.Kind] != nil:
			options = disciplines[q.Kind](options)
		}
		b := request(linux.Tcmsg{Ifindex: int32(here), Handle: q.Handle, Parent: q.Parent})
		b.String(unix.TCA_KIND, q.Kind)
		if len(options) > 0 {
			b.Bytes(unix.TCA_OPTIONS, options)
		}
		if err := c.Do(kind, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b); err != nil {
			return fmt.Errorf("queueing discipline %s %x:%x of network interface %d: %w", q.Kind, q.Handle>>16, q.Handle&0xffff, here, err)
		}
	}
	return nil
}
