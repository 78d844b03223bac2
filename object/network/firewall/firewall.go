// Package firewall has the packet filters of a network namespace: nf_tables, iptables, and the connections that conntrack
// knows. They are kept as the kernel gives them, and entered again in the instance's own name.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/network/netlink"
	"vps/remote"
)

// maxBytes bounds a record: it must fit in a snapshot's.
const maxBytes = 12 << 20

// Read reads the packet filters of the network namespace of the calling thread, and names what cannot be restored.
func Read() (*dump.Firewall, []error) {
	f := &dump.Firewall{}
	var refusals []error
	c, err := netlink.Open(unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return f, nil // the kernel has none
	}
	if err != nil {
		return f, []error{err}
	}
	defer c.Close()
	for _, read := range []func() error{
		func() (err error) { f.Rules, err = readTables(c); return err },
		func() (err error) { f.Connections, err = readConnections(c); return err },
		func() (err error) { f.Tables, err = readXtables(); return err },
		func() error { return refuseSets(c) },
	} {
		if err := read(); err != nil {
			refusals = append(refusals, err)
		}
	}
	size := 0
	for _, m := range append(f.Rules, f.Connections...) {
		size += len(m.Attributes)
	}
	for _, t := range f.Tables {
		size += len(t.Rules)
	}
	if size > maxBytes {
		refusals = append(refusals, refusal("packet filters of %d bytes", size))
	}
	return f, refusals
}

func refusal(format string, args ...any) error {
	return &object.Refusal{FD: -1, Object: fmt.Sprintf(format, args...)}
}

// Empty tells whether there is nothing in a record.
func Empty(f *dump.Firewall) bool {
	return len(f.GetRules()) == 0 && len(f.GetConnections()) == 0 && len(f.GetTables()) == 0
}

// Check refuses records that make no sense. What messages say the kernel checks, as that of the instance.
func Check(f *dump.Firewall) error {
	for _, m := range f.GetRules() {
		k, ok := kinds[m.Type]
		if !ok || m.Family > math.MaxUint8 {
			return fmt.Errorf("packet filter: message of type %d", m.Type)
		}
		for a := range netlink.Attributes(m.Attributes) {
			if !k.keeps(a.Type) {
				return fmt.Errorf("packet filter: attribute %d of %s", a.Type, k.name)
			}
		}
		if err := netlink.Check(m.Attributes); err != nil {
			return fmt.Errorf("packet filter: %s: %w", k.name, err)
		}
	}
	for _, m := range f.GetConnections() {
		if m.Type != linux.IPCTNL_MSG_CT_NEW || m.Family != unix.AF_INET && m.Family != unix.AF_INET6 {
			return fmt.Errorf("tracked connection of type %d, family %d", m.Type, m.Family)
		}
		if err := netlink.Check(m.Attributes); err != nil {
			return fmt.Errorf("tracked connection: %w", err)
		}
	}
	for _, t := range f.GetTables() {
		if err := checkXtable(t); err != nil {
			return err
		}
	}
	return nil
}

// Restorer enters what a record has, in the instance's name.
type Restorer struct {
	Maker  *object.Maker
	Conn   *netlink.Conn // to netfilter, by a socket of the maker's
	Socket int           // its descriptor there
}

// RestoreRules enters the rules, all at once.
func (r *Restorer) RestoreRules(ctx context.Context, f *dump.Firewall) error {
	if len(f.GetRules()) > 0 {
		if err := r.batch(ctx, f.GetRules()); err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
	}
	for _, t := range f.GetTables() {
		if err := r.replace(ctx, t); err != nil {
			return fmt.Errorf("table %s of %s: %w", t.Name, xtables[t.Family].name, err)
		}
	}
	return nil
}

// batch sends the messages as one transaction. The instance itself sends: some rules may be entered by its own users only (xt_owner).
func (r *Restorer) batch(ctx context.Context, messages []*dump.NetfilterMessage) error {
	bounds := genmsg(unix.AF_UNSPEC)
	bounds[3] = unix.NFNL_SUBSYS_NFTABLES // res_id, in network order
	seq := uint32(1)
	data := netlink.Pack(unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, seq, bounds)
	for _, m := range messages {
		seq++
		flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_CREATE)
		if m.Type == unix.NFT_MSG_NEWRULE {
			flags |= unix.NLM_F_APPEND
		}
		data = append(data, netlink.Pack(nftType(m.Type), flags, seq, append(genmsg(m.Family), m.Attributes...))...)
	}
	data = append(data, netlink.Pack(unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, seq+1, bounds)...)
	if err := r.Conn.Grow(len(data)); err != nil {
		return err
	}
	err := r.Maker.RunOn(ctx, len(data), func(b *remote.Batch, at remote.Address) []byte {
		b.Call("send a batch of rules", unix.SYS_SENDTO, r.Socket, at, len(data), 0, 0, 0)
		return data
	})
	if err != nil {
		return err
	}
	return r.Conn.Drain()
}

// genmsg is struct nfgenmsg, version 0.
func genmsg(family uint32) []byte {
	head := linux.Nfgenmsg{Family: uint8(family)}
	return append([]byte(nil), (*[unsafe.Sizeof(head)]byte)(unsafe.Pointer(&head))[:]...)
}

const genmsgSize = int(unsafe.Sizeof(linux.Nfgenmsg{}))

// list asks netfilter for objects, and gives family and attributes of each to f. A kernel that does not know them has none.
func list(c *netlink.Conn, kind uint16, body []byte, f func(family uint8, attributes []byte) error) error {
	err := c.Dump(kind, body, func(m netlink.Message) error {
		if len(m.Body) < genmsgSize {
			return nil
		}
		return f(m.Body[0], m.Body[genmsgSize:])
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// refuseSets refuses sets of ipset(8).
func refuseSets(c *netlink.Conn) error {
	const listSets, attribute, protocol, name = 7, 1, 6, 2 // IPSET_CMD_LIST, IPSET_ATTR_PROTOCOL, IPSET_PROTOCOL_MIN, IPSET_ATTR_SETNAME
	b := netlink.Builder(genmsg(unix.AF_UNSPEC))
	b.Uint8(attribute, protocol)
	found := ""
	err := list(c, unix.NFNL_SUBSYS_IPSET<<8|listSets, b, func(_ uint8, attributes []byte) error {
		found = unix.ByteSliceToString(netlink.Find(attributes, name))
		return nil
	})
	if err != nil {
		return fmt.Errorf("list sets of ipset: %w", err)
	}
	if found != "" {
		return refusal("ipset %s", found)
	}
	return nil
}
