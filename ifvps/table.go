package ifvps

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
	maxPorts     = 4096
	maxAddresses = 65536 // owned, by all instances
)

// port is an interface of an instance as the programs see it: an entry of the table of ports, which is mapped into our memory.
// Entry 0 is not used.
type port struct {
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

const costUnit = 1 << 16

// owner is what the table of addresses knows of one.
type owner struct {
	Port, Instance uint32
}

// tables are the maps that the programs share with us.
type tables struct {
	ports     *ebpf.Map
	links     *ebpf.Map // ifindex of a host's end: its port
	addresses *ebpf.Map // 16 bytes, netip.Addr.As16: its owner
	memory    []byte    // the table of ports
}

var (
	portsSpec = ebpf.MapSpec{
		Name: "vps_ports_1", Type: ebpf.Array, Flags: unix.BPF_F_MMAPABLE,
		KeySize: 4, ValueSize: uint32(unsafe.Sizeof(port{})), MaxEntries: maxPorts,
	}
	linksSpec = ebpf.MapSpec{
		Name: "vps_links_1", Type: ebpf.Hash, Flags: unix.BPF_F_NO_PREALLOC, KeySize: 4, ValueSize: 4, MaxEntries: maxPorts,
	}
	addressesSpec = ebpf.MapSpec{
		Name: "vps_addresses_1", Type: ebpf.Hash, Flags: unix.BPF_F_NO_PREALLOC,
		KeySize: 16, ValueSize: uint32(unsafe.Sizeof(owner{})), MaxEntries: maxAddresses,
	}
)

// newTables makes empty tables. The caller closes them.
func newTables() (t *tables, err error) {
	t = &tables{}
	defer func() {
		if err != nil {
			t.close()
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

func (t *tables) mapPorts() error {
	var err error
	if t.memory, err = unix.Mmap(t.ports.FD(), 0, maxPorts*int(unsafe.Sizeof(port{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map table %s: %w", portsSpec.Name, err)
	}
	return nil
}

// findTables opens the tables of a program that an earlier daemon attached; nil, if they are of another version.
func findTables(program ebpf.ProgramID) (t *tables, err error) {
	p, err := ebpf.NewProgramFromID(program)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", program, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("program %d: %w", program, err)
	}
	t = &tables{}
	defer func() {
		if t != nil && (err != nil || t.memory == nil) {
			t.close()
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
func (t *tables) named(m *ebpf.Map) **ebpf.Map {
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

func (t *tables) close() {
	if t.memory != nil {
		unix.Munmap(t.memory)
	}
	for _, m := range []*ebpf.Map{t.ports, t.links, t.addresses} {
		m.Close()
	}
}

// port is the entry of a port. Its fields change under our hands: they are read and written by package atomic.
func (t *tables) port(n uint32) *port {
	return (*port)(unsafe.Pointer(&t.memory[uintptr(n)*unsafe.Sizeof(port{})]))
}

func (t *tables) link(ifindex int, n uint32) error {
	if err := t.links.Put(uint32(ifindex), n); err != nil {
		return fmt.Errorf("table %s: %w", linksSpec.Name, err)
	}
	return nil
}

// of returns the port of a link; 0 if it is none's.
func (t *tables) of(ifindex int) (n uint32) {
	if t.links.Lookup(uint32(ifindex), &n) != nil || n >= maxPorts || t.port(n).instance == 0 {
		return 0
	}
	return n
}

// own gives an address to a port. Error: ErrTaken.
func (t *tables) own(a netip.Addr, n uint32) error {
	to := owner{Port: n, Instance: t.port(n).instance}
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

// owns tells whether a port has an address.
func (t *tables) owns(a netip.Addr, n uint32) bool {
	var has owner
	return t.addresses.Lookup(a.As16(), &has) == nil && has.Port == n
}

// disown takes an address from a port, if it has it.
func (t *tables) disown(a netip.Addr, n uint32) error {
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

// forget takes a port out of all tables.
func (t *tables) forget(n uint32) error {
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
	atomic.StoreUint32(&t.port(n).instance, 0)
	return errors.Join(errs...)
}
