package ifvps

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

type forwarded struct {
	Forward
	to netip.Addr
}

func (t *translation) empty() bool { return len(t.hidden)+len(t.forwards) == 0 }

// translations collects what all members want.
func (s *Switch) translations() [2]translation {
	all := [2]translation{
		{family: nftables.TableFamilyIPv4, proto: unix.NFPROTO_IPV4, source: 12, dest: 16, length: 4, loopback: []byte{127}},
		{family: nftables.TableFamilyIPv6, proto: unix.NFPROTO_IPV6, source: 8, dest: 24, length: 16, loopback: netip.IPv6Loopback().AsSlice()},
	}
	for _, m := range s.all() {
		for _, p := range m.Interfaces() {
			for n := range all {
				all[n].add(p)
			}
		}
	}
	for n := range all {
		slices.SortFunc(all[n].hidden, netip.Addr.Compare)
	}
	return all
}

// add adds what an interface wants.
func (t *translation) add(i Interface) {
	own := slices.DeleteFunc(slices.Clone(i.Addresses), func(a netip.Addr) bool { return a.BitLen() != int(8*t.length) })
	if i.NAT {
		t.hidden = append(t.hidden, own...)
	}
	for _, f := range i.Forwards {
		if len(own) > 0 && (!f.Host.IsValid() || f.Host.BitLen() == int(8*t.length)) {
			t.forwards = append(t.forwards, forwarded{f, own[0]})
		}
	}
}

// translate has the host translate addresses as the members want it, instead of what it did before.
func (s *Switch) translate() error {
	s.translating.Lock()
	defer s.translating.Unlock()
	for _, t := range s.translations() {
		if err := s.replace(&t); err != nil {
			return fmt.Errorf("translate addresses: %w", err)
		}
	}
	return nil
}

// translated tells whether the host has tables of ours.
func (s *Switch) translated() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	all, err := c.ListTables()
	return slices.ContainsFunc(all, func(t *nftables.Table) bool { return t.Name == s.tableName() }), err
}

func (s *Switch) tableName() string { return "vps_" + s.key }

// replace replaces the table of one protocol.
func (s *Switch) replace(t *translation) error {
	table := &nftables.Table{Name: s.tableName(), Family: t.family}
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
	link := []byte(string(rune(prefixHost)) + s.key)
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
