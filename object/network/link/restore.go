package link

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/network/netlink"
)

// Restorer makes the interfaces of a network namespace, in the order of its methods.
type Restorer struct {
	conn  *netlink.Conn
	ids   object.IDMaps
	want  []*dump.Interface
	index map[uint32]uint32 // of those that are here, by the recorded one
}

// NewRestorer restores checked records in the network namespace of the calling thread, and of the Conn.
func NewRestorer(c *netlink.Conn, ids object.IDMaps, want []*dump.Interface) *Restorer {
	return &Restorer{c, ids, want, make(map[uint32]uint32)}
}

// Index gives the index that an interface has here.
func (r *Restorer) Index(recorded uint32) (uint32, error) {
	if i, ok := r.index[recorded]; ok || recorded == 0 {
		return i, nil
	}
	return 0, fmt.Errorf("there is no network interface %d", recorded)
}

// Make finds what the host has given, and makes the others: each after the one that it stands on. All are down but lo.
func (r *Restorer) Make() error {
	here, err := r.read()
	if err != nil {
		return err
	}
	var left []*dump.Interface
	for _, i := range r.want {
		switch at := here[i.Name]; {
		case i.External && at == nil:
			return fmt.Errorf("network interface %s, which the host gave, is not here", i.Name)
		case at != nil:
			r.index[i.Index] = at.Index
		default:
			left = append(left, i)
		}
	}
	for len(left) > 0 {
		before := len(left)
		left = slices.DeleteFunc(left, func(i *dump.Interface) bool {
			if _, there := r.index[i.Link]; err != nil || i.Link != 0 && !there && i.Kind != "veth" {
				return false
			}
			if _, there := r.index[i.Index]; !there { // a veth comes with its other end
				err = r.make(i)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
		if len(left) == before {
			return fmt.Errorf("network interface %s stands on itself", left[0].Name)
		}
	}
	return nil
}

// read lists what is here, by name.
func (r *Restorer) read() (map[string]*dump.Interface, error) {
	list, refusals := Read(r.conn, r.ids)
	if len(refusals) > 0 {
		return nil, refusals[0]
	}
	here := make(map[string]*dump.Interface)
	for _, i := range list {
		here[i.Name] = i
	}
	return here, nil
}

// record returns a checked record by its index.
func (r *Restorer) record(index uint32) *dump.Interface {
	return r.want[slices.IndexFunc(r.want, func(i *dump.Interface) bool { return i.Index == index })]
}

func (r *Restorer) make(i *dump.Interface) error {
	if i.Kind == "veth" && i.Link > i.Index {
		i = r.record(i.Link) // the kernel makes the other end first
	}
	err := error(nil)
	if i.Kind == "tun" {
		err = makeTun(i, r.ids)
	} else {
		err = r.conn.Do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, request(i.Index, func(b *netlink.Builder) { r.born(b, i) }))
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("kind %s: %w: %w", i.Kind, object.ErrUnsupported, err)
	}
	if err != nil {
		return fmt.Errorf("make network interface %s: %w", i.Name, err)
	}
	r.index[i.Index] = i.Index
	if i.Kind == "veth" {
		r.index[i.Link] = i.Link
	}
	return nil
}

// born adds what an interface has from its birth.
func (r *Restorer) born(b *netlink.Builder, i *dump.Interface) {
	named(b, i)
	if i.Link != 0 && i.Kind != "veth" {
		b.Uint32(unix.IFLA_LINK, r.index[i.Link])
	}
	b.Nest(unix.IFLA_LINKINFO, func(b *netlink.Builder) {
		b.String(unix.IFLA_INFO_KIND, i.Kind)
		b.Nest(unix.IFLA_INFO_DATA, func(b *netlink.Builder) {
			*b = append(*b, i.Data...)
			if i.Kind != "veth" {
				return
			}
			b.Nest(linux.VETH_INFO_PEER, func(b *netlink.Builder) {
				*b = append(*b, request(i.Link, nil)...)
				named(b, r.record(i.Link))
			})
		})
	})
}

// named adds what the ends of a veth have each.
func named(b *netlink.Builder, i *dump.Interface) {
	b.String(unix.IFLA_IFNAME, i.Name)
	b.SomeUint32(unix.IFLA_NUM_TX_QUEUES, i.Queues)
	b.SomeUint32(unix.IFLA_NUM_RX_QUEUES, i.ReceiveQueues)
	if i.Kind != "ipvlan" { // it has that of the interface below
		b.Some(unix.IFLA_ADDRESS, i.Address)
	}
}

// Equip gives the interfaces what they differ in, and their masters.
func (r *Restorer) Equip() error {
	here, err := r.read()
	if err != nil {
		return err
	}
	for _, i := range r.want {
		if here[i.Name] == nil {
			return fmt.Errorf("network interface %s has vanished", i.Name)
		}
		if err := r.equip(i, here[i.Name]); err != nil {
			return fmt.Errorf("network interface %s: %w", i.Name, err)
		}
	}
	for _, i := range r.want {
		if i.Master == 0 || i.Master == here[i.Name].Master {
			continue
		}
		if err := r.join(i); err != nil {
			return fmt.Errorf("network interface %s: join interface %d: %w", i.Name, i.Master, err)
		}
	}
	return nil
}

func (r *Restorer) equip(i, have *dump.Interface) error {
	index := r.index[i.Index]
	var b netlink.Builder
	if !i.External && !bytes.Equal(i.Address, have.Address) {
		b.Bytes(unix.IFLA_ADDRESS, i.Address)
	}
	for _, n := range []struct {
		attribute  uint16
		want, have uint32
	}{{unix.IFLA_MTU, i.Mtu, have.Mtu}, {unix.IFLA_TXQLEN, i.QueueLength, have.QueueLength}, {unix.IFLA_GROUP, i.Group, have.Group}} {
		if n.want != n.have {
			b.Uint32(n.attribute, n.want)
		}
	}
	if i.Alias != have.Alias {
		b.String(unix.IFLA_IFALIAS, i.Alias)
	}
	if len(b) > 0 {
		if err := r.conn.Do(unix.RTM_SETLINK, 0, request(index, func(all *netlink.Builder) { *all = append(*all, b...) })); err != nil {
			return fmt.Errorf("set its attributes: %w", err)
		}
	}
	for _, name := range i.AlternativeNames {
		if slices.Contains(have.AlternativeNames, name) {
			continue
		}
		err := r.conn.Do(unix.RTM_NEWLINKPROP, unix.NLM_F_EXCL|unix.NLM_F_CREATE|unix.NLM_F_APPEND, request(index, func(b *netlink.Builder) {
			b.Nest(unix.IFLA_PROP_LIST, func(b *netlink.Builder) { b.String(unix.IFLA_ALT_IFNAME, name) })
		}))
		if err != nil {
			return fmt.Errorf("alternative name %s: %w", name, err)
		}
	}
	return nil
}

// join makes an interface a port of its master.
func (r *Restorer) join(i *dump.Interface) error {
	index, master := r.index[i.Index], r.index[i.Master]
	err := r.conn.Do(unix.RTM_SETLINK, 0, request(index, func(b *netlink.Builder) { b.Uint32(unix.IFLA_MASTER, master) }))
	if err != nil || len(i.PortData) == 0 {
		return err
	}
	kind := r.record(i.Master).Kind
	if err := onlyThose(i.PortData, kinds[kind].port); kinds[kind].port == nil || err != nil {
		return fmt.Errorf("settings of a port of kind %q: %w", kind, err)
	}
	return r.conn.Do(unix.RTM_NEWLINK, 0, request(index, func(b *netlink.Builder) {
		b.Nest(unix.IFLA_LINKINFO, func(b *netlink.Builder) {
			b.String(unix.IFLA_INFO_SLAVE_KIND, kind)
			b.Bytes(unix.IFLA_INFO_SLAVE_DATA|unix.NLA_F_NESTED, i.PortData)
		})
	}))
}

// Up gives the interfaces their flags. The kernel gives none an address of its own.
func (r *Restorer) Up() error {
	here, err := r.read()
	if err != nil {
		return err
	}
	for _, i := range r.want {
		have := here[i.Name]
		if have == nil || have.Flags == i.Flags {
			continue
		}
		if i.Flags&unix.IFF_UP != 0 && i.Name != "lo" {
			if err := r.addressMode(i, linux.IN6_ADDR_GEN_MODE_NONE); err != nil {
				return err
			}
		}
		head := unix.IfInfomsg{Index: int32(r.index[i.Index]), Flags: i.Flags, Change: settable}
		if err := r.conn.Do(unix.RTM_SETLINK, 0, message(head, nil)); err != nil {
			return fmt.Errorf("network interface %s: set its flags to %#x: %w", i.Name, i.Flags, err)
		}
	}
	return nil
}

// Settle gives the interfaces what time the kernel needs to find that they can carry packets.
func (r *Restorer) Settle() error {
	const patience, pause = time.Second, 2 * time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		here, err := r.read()
		if err != nil {
			return err
		}
		settled := !slices.ContainsFunc(r.want, func(i *dump.Interface) bool {
			return !i.External && i.State == linux.IF_OPER_UP && here[i.Name].GetState() != linux.IF_OPER_UP
		})
		if settled || time.Now().After(end) { // what it stands on may be the host's, and down
			return nil
		}
	}
}

// Finish lets the kernel make addresses as before.
func (r *Restorer) Finish() error {
	here, err := r.read()
	if err != nil {
		return err
	}
	for _, i := range r.want {
		if have := here[i.Name]; have != nil && (have.AddressMode != i.AddressMode || !bytes.Equal(have.Token, i.Token)) {
			if err := r.addressMode(i, i.AddressMode); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Restorer) addressMode(i *dump.Interface, mode uint32) error {
	err := r.conn.Do(unix.RTM_SETLINK, 0, request(r.index[i.Index], func(b *netlink.Builder) {
		b.Nest(unix.IFLA_AF_SPEC, func(b *netlink.Builder) {
			b.Nest(unix.AF_INET6, func(b *netlink.Builder) {
				b.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, mode)
				if mode != linux.IN6_ADDR_GEN_MODE_NONE {
					b.Some(unix.IFLA_INET6_TOKEN, i.Token)
				}
			})
		})
	}))
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENODEV) {
		return nil // no IPv6 on it
	}
	if err != nil {
		return fmt.Errorf("network interface %s: set the way of its IPv6 addresses: %w", i.Name, err)
	}
	return nil
}
