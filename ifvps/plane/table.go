// Package plane is what decides about each packet of the switch: eBPF programs at the host's ends of links, and the tables that they
// share with us. The kernel keeps both for as long as a link has a program.
package plane

import (
	"errors"
	"fmt"
	"net/netip"
	"structs"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Sizes of the tables.
const (
	MaxPorts     = 4096
	maxAddresses = 65536 // owned, by all instances
)

// Port is an interface of an instance as the programs see it: an entry of the table of ports, which is mapped into our memory.
// Entry 0 is not used.
type Port struct {
	_        structs.HostLayout
	instance uint32 // the number of its instance's first port; 0: there is no such port
	ifindex  uint32 // of the host's end
	gate     uint32 // not 0: nothing goes out, what comes is kept
	hold     uint32 // ifindex of the tap that keeps packets while the gate is closed; 0: they are dropped
	room     int64  // bytes that may still be kept
	seek     uint64 // CLOCK_MONOTONIC, ns: when the instance may have the host look for a neighbour again
	_        [4]uint64

	out, in traffic // as the instance sees it

	spoofed uint64 // packets with a source that is not the instance's
	foreign uint64 // packets that are neither IPv4 nor IPv6 to one destination
	itself  uint64 // packets whose destination is where they came from
	lost    uint64 // packets that could not be kept
	flooded uint64 // packets to neighbours of the host that it does not know, beyond how many it looks for
	_       [3]uint64
}

// traffic is one direction of a port.
type traffic struct {
	_       structs.HostLayout
	packets uint64
	bytes   uint64
	cost    uint64 // ns that a byte takes of the bandwidth, times costUnit; 0: no limit
	next    uint64 // CLOCK_MONOTONIC, ns: when the bandwidth is free again
	limited uint64 // packets dropped for the limit
	_       [3]uint64
}

// ErrTaken says that an address is another instance's.
var ErrTaken = errors.New("the address is another instance's")

const costUnit = 1 << 16

// owner is what the table of addresses knows of one.
type owner struct {
	Port, Instance uint32
	Absent         uint32 // not 0: the instance has not configured it, or its interface is down
	_              uint32
}

// Tables are the maps that the programs share with us.
type Tables struct {
	ports     *ebpf.Map
	links     *ebpf.Map // ifindex of a host's end: its port
	addresses *ebpf.Map // 16 bytes, netip.Addr.As16: its owner
	memory    []byte    // the table of ports
}

var (
	portsSpec = ebpf.MapSpec{
		Name: "vps_ports_1", Type: ebpf.Array, Flags: unix.BPF_F_MMAPABLE,
		KeySize: 4, ValueSize: uint32(unsafe.Sizeof(Port{})), MaxEntries: MaxPorts,
	}
	linksSpec = ebpf.MapSpec{
		Name: "vps_links_1", Type: ebpf.Hash, Flags: unix.BPF_F_NO_PREALLOC, KeySize: 4, ValueSize: 4, MaxEntries: MaxPorts,
	}
	addressesSpec = ebpf.MapSpec{
		Name: "vps_addresses_2", Type: ebpf.Hash, Flags: unix.BPF_F_NO_PREALLOC,
		KeySize: 16, ValueSize: uint32(unsafe.Sizeof(owner{})), MaxEntries: maxAddresses,
	}
)

// New makes empty tables. The caller closes them.
func New() (t *Tables, err error) {
	t = &Tables{}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	for _, m := range []struct {
		to   **ebpf.Map
		spec *ebpf.MapSpec
	}{{&t.ports, &portsSpec}, {&t.links, &linksSpec}, {&t.addresses, &addressesSpec}} {
		if *m.to, err = ebpf.NewMap(m.spec); err != nil {
			return nil, fmt.Errorf("make table %s: %w", m.spec.Name, err)
		}
	}
	return t, t.mapPorts()
}

func (t *Tables) mapPorts() error {
	var err error
	if t.memory, err = unix.Mmap(t.ports.FD(), 0, MaxPorts*int(unsafe.Sizeof(Port{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map table %s: %w", portsSpec.Name, err)
	}
	return nil
}

// Find opens the tables of a program that an earlier daemon attached; nil, if they are of another version.
func Find(program ebpf.ProgramID) (t *Tables, err error) {
	p, err := ebpf.NewProgramFromID(program)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", program, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("program %d: %w", program, err)
	}
	t = &Tables{}
	defer func() {
		if t != nil && (err != nil || t.memory == nil) {
			t.Close()
			t = nil
		}
	}()
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return t, fmt.Errorf("open map %d: %w", id, err)
		}
		to := t.named(m)
		if to == nil {
			m.Close()
			continue
		}
		*to = m
	}
	if t.ports == nil || t.links == nil || t.addresses == nil {
		return t, nil
	}
	return t, t.mapPorts()
}

// named tells which of the tables a map is.
func (t *Tables) named(m *ebpf.Map) **ebpf.Map {
	info, err := m.Info()
	if err != nil {
		return nil
	}
	switch {
	case info.Name == portsSpec.Name && portsSpec.Compatible(m) == nil:
		return &t.ports
	case info.Name == linksSpec.Name && linksSpec.Compatible(m) == nil:
		return &t.links
	case info.Name == addressesSpec.Name && addressesSpec.Compatible(m) == nil:
		return &t.addresses
	}
	return nil
}

// Close lets go of the tables, which the programs still have.
func (t *Tables) Close() {
	if t.memory != nil {
		unix.Munmap(t.memory)
	}
	for _, m := range []*ebpf.Map{t.ports, t.links, t.addresses} {
		m.Close()
	}
}

// Port is the entry of a port. Its fields change under our hands.
func (t *Tables) Port(n uint32) *Port {
	return (*Port)(unsafe.Pointer(&t.memory[uintptr(n)*unsafe.Sizeof(Port{})]))
}

// Link says of which port a link is: the host\'s end, or the tap.
func (t *Tables) Link(ifindex int, n uint32) error {
	if err := t.links.Put(uint32(ifindex), n); err != nil {
		return fmt.Errorf("table %s: %w", linksSpec.Name, err)
	}
	return nil
}

// Of returns the port of a link; 0 if it is none's.
func (t *Tables) Of(ifindex int) (n uint32) {
	if t.links.Lookup(uint32(ifindex), &n) != nil || n >= MaxPorts || t.Port(n).instance == 0 {
		return 0
	}
	return n
}

// Own gives an address to a port, where it is, or is not for the moment. Error: ErrTaken.
func (t *Tables) Own(a netip.Addr, n uint32, present bool) error {
	to := owner{Port: n, Instance: t.Port(n).instance}
	if !present {
		to.Absent = 1
	}
	err := t.addresses.Update(a.As16(), &to, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		var has owner
		if err = t.addresses.Lookup(a.As16(), &has); err == nil && has.Instance != to.Instance {
			return fmt.Errorf("%v: %w", a, ErrTaken)
		}
		err = t.addresses.Put(a.As16(), &to)
	}
	if err != nil {
		return fmt.Errorf("table %s: %v: %w", addressesSpec.Name, a, err)
	}
	return nil
}

// Owns tells whether a port has an address.
func (t *Tables) Owns(a netip.Addr, n uint32) bool {
	var has owner
	return t.addresses.Lookup(a.As16(), &has) == nil && has.Port == n
}

// Disown takes an address from a port, if it has it.
func (t *Tables) Disown(a netip.Addr, n uint32) error {
	var has owner
	err := t.addresses.Lookup(a.As16(), &has)
	if err == nil && has.Port == n {
		err = t.addresses.Delete(a.As16())
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("table %s: %v: %w", addressesSpec.Name, a, err)
	}
	return nil
}

// Forget takes a port out of all tables.
func (t *Tables) Forget(n uint32) error {
	var errs []error
	var a [16]byte
	var has owner
	var addresses [][16]byte
	each := t.addresses.Iterate()
	for each.Next(&a, &has) {
		if has.Port == n {
			addresses = append(addresses, a)
		}
	}
	errs = append(errs, each.Err())
	for _, a := range addresses {
		errs = append(errs, t.addresses.Delete(a))
	}
	var ifindex, of uint32
	var links []uint32
	each = t.links.Iterate()
	for each.Next(&ifindex, &of) {
		if of == n {
			links = append(links, ifindex)
		}
	}
	errs = append(errs, each.Err())
	for _, ifindex := range links {
		errs = append(errs, t.links.Delete(ifindex))
	}
	atomic.StoreUint32(&t.Port(n).instance, 0)
	return errors.Join(errs...)
}
