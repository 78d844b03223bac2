// Package nat has the host translate addresses and ports, by tables of nftables(8).
package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// translation is a network protocol's part of what the host translates: a table of nftables for each that has something.
type translation struct {
	family   nftables.TableFamily
	proto    uint32 // for nat expressions: NFPROTO_
	source   uint32 // offsets in the header
	dest     uint32
	length   uint32
	loopback []byte // what the address of the host itself begins with

	hidden   []netip.Addr // instances' addresses that are not seen outside
	forwards []forwarded
}

// Interface is one of an instance.
type Interface struct {
	Addresses []netip.Addr
	Hidden    bool // outside of the host it has the host's address
	Forwards  []Forward
}

// Forward is a port of the host's that leads to one of an interface's first address of the same family.
type Forward struct {
	UDP    bool       // else TCP
	Host   netip.Addr // an address of the host's; zero: any
	Port   uint16     // there
	Inside uint16
}

type forwarded struct {
	Forward
	to netip.Addr
}

func (t *translation) empty() bool { return len(t.hidden)+len(t.forwards) == 0 }

// Replace has the host translate addresses as interfaces want it, instead of what it did before under that name of tables. The names of
// the instances' links begin with link.
func Replace(name, link string, wants []Interface) error {
	all := []translation{
		{family: nftables.TableFamilyIPv4, proto: unix.NFPROTO_IPV4, source: 12, dest: 16, length: 4, loopback: []byte{127}},
		{family: nftables.TableFamilyIPv6, proto: unix.NFPROTO_IPV6, source: 8, dest: 24, length: 16, loopback: netip.IPv6Loopback().AsSlice()},
	}
	for _, t := range all {
		for _, w := range wants {
			t.add(w)
		}
		if err := t.replace(name, []byte(link)); err != nil {
			return fmt.Errorf("translate addresses: %w", err)
		}
	}
	return nil
}

// add adds what an interface wants.
func (t *translation) add(i Interface) {
	own := slices.DeleteFunc(slices.Clone(i.Addresses), func(a netip.Addr) bool { return a.BitLen() != int(8*t.length) })
	if i.Hidden {
		t.hidden = append(t.hidden, own...)
	}
	for _, f := range i.Forwards {
		if len(own) > 0 && (!f.Host.IsValid() || f.Host.BitLen() == int(8*t.length)) {
			t.forwards = append(t.forwards, forwarded{f, own[0]})
		}
	}
}

// Exists tells whether the host has tables of that name.
func Exists(name string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	all, err := c.ListTables()
	return slices.ContainsFunc(all, func(t *nftables.Table) bool { return t.Name == name }), err
}

// replace replaces the table of one protocol.
func (t *translation) replace(name string, link []byte) error {
	table := &nftables.Table{Name: name, Family: t.family}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if t.empty() {
		c.DelTable(table)
		if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) {
			return err
		}
		return nil
	}
	c.AddTable(table) // one that is not there cannot be removed
	c.DelTable(table)
	c.AddTable(table)
	chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Table: table, Name: name, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority})
	}
	arriving := chain("arriving", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	own := chain("own", nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	leaving := chain("leaving", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, f := range t.forwards {
		c.AddRule(&nftables.Rule{Table: table, Chain: arriving, Exprs: t.forward(f)})
		c.AddRule(&nftables.Rule{Table: table, Chain: own, Exprs: append(t.notLoopback(), t.forward(f)...)})
	}
	for _, a := range t.hidden {
		c.AddRule(&nftables.Rule{Table: table, Chain: leaving, Exprs: []expr.Any{
			t.header(t.source, t.length), equal(a.AsSlice()),
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: link},
			&expr.Masq{},
		}})
	}
	// From one instance to another by way of the host: a forward. The answer has to come this way too.
	c.AddRule(&nftables.Rule{Table: table, Chain: leaving, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(link), &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, equal(link),
		&expr.Masq{},
	}})
	return c.Flush()
}

// header loads a field of the network header into register 1.
func (t *translation) header(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

// equal goes on if register 1 has, or begins with, some bytes.
func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func (t *translation) notLoopback() []expr.Any {
	return []expr.Any{t.header(t.dest, uint32(len(t.loopback))), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: t.loopback}}
}

// forward sends what is for a port of the host's to an instance.
func (t *translation) forward(f forwarded) []expr.Any {
	protocol := byte(unix.IPPROTO_TCP)
	if f.UDP {
		protocol = unix.IPPROTO_UDP
	}
	rule := []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{protocol})}
	if f.Host.IsValid() {
		rule = append(rule, t.header(t.dest, t.length), equal(f.Host.AsSlice()))
	} else {
		rule = append(rule, &expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			equal(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)))
	}
	return append(rule,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, equal(binary.BigEndian.AppendUint16(nil, f.Port)),
		&expr.Immediate{Register: 1, Data: f.to.AsSlice()}, &expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, f.Inside)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: t.proto, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	)
}
