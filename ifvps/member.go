package ifvps

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"vps/ifvps/plane"
)

// Member is an instance at the switch.
type Member struct {
	sw   *Switch
	spec Spec

	mu     sync.Mutex
	ports  []*Port
	pid    int // of a process in its network namespace; 0: it is parked
	watch  *watch
	parked bool
}

// Port is one interface of a member.
type Port struct {
	Interface
	member *Member
	n      uint32       // in the table of ports
	owned  []netip.Addr // sorted: the configured ones, and what the instance has added
	absent []netip.Addr // of these, what the instance has not configured, or has on an interface that is down
	tap    *tap         // nil: it has not been needed yet
}

func (p *Port) entry() *plane.Port { return p.member.sw.tables.Port(p.n) }

func (p *Port) hostName() string { return p.member.sw.name(prefixHost, p.member.spec.ID, p.Name) }
func (p *Port) tapName() string  { return p.member.sw.name(prefixTap, p.member.spec.ID, p.Name) }
func (p *Port) parkName() string { return p.member.sw.name(prefixPark, p.member.spec.ID, p.Name) }

// Attach connects an instance, whose network namespace is that of a process. What was parked of it is used; everything else is made.
// If closed, the gates are. After an error nothing is left, and what was parked is still.
func (s *Switch) Attach(spec Spec, pid int, closed bool) (m *Member, err error) {
	s.mu.Lock()
	m = s.members[spec.ID]
	s.mu.Unlock()
	if m != nil {
		if err := m.comeBack(spec, pid, closed); err != nil {
			return m, err
		}
		return m, s.translateFor(&spec)
	}
	if m, err = s.member(spec); err != nil {
		return nil, err
	}
	in, err := enter(pid)
	if err == nil {
		defer in.close()
		err = m.build(in, pid, closed)
	}
	if err == nil {
		err = s.translateFor(&spec)
	}
	if err != nil {
		return nil, errors.Join(err, m.Remove())
	}
	return m, nil
}

// member makes a member with entries in the table of ports, but no link.
func (s *Switch) member(spec Spec) (*Member, error) {
	m := &Member{sw: s, spec: spec}
	first := uint32(0)
	for _, i := range spec.Interfaces {
		if i.MAC == ([6]byte{}) {
			i.MAC = s.usualMAC(spec.ID, i.Name)
		}
		p := &Port{Interface: i, member: m}
		n, err := s.claim(first)
		if err != nil {
			return nil, errors.Join(err, m.Remove())
		}
		p.n = n
		if first == 0 {
			first = n
		}
		m.ports = append(m.ports, p)
	}
	s.mu.Lock()
	s.members[spec.ID] = m
	s.mu.Unlock()
	return m, nil
}

func (m *Member) build(in *inside, pid int, closed bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.ports {
		for _, a := range p.Addresses {
			if err := p.own(a); err != nil {
				return err
			}
		}
	}
	for _, p := range m.ports {
		if err := p.makeLink(in); err != nil {
			return err
		}
		if closed {
			if err := p.close(plane.GateIn | plane.GateOut); err != nil {
				return err
			}
		}
	}
	return m.connect(in, pid)
}

// connect connects links that are there. The caller holds m.mu.
func (m *Member) connect(in *inside, pid int) error {
	m.pid, m.parked = pid, false
	for _, p := range m.ports {
		p.absent = nil
		if err := p.furnish(in); err != nil {
			return err
		}
		if err := p.present(); err != nil {
			return err
		}
	}
	return m.startWatch(in)
}

// present connects the host's end of a port, and announces its addresses. What is as it should be stays.
func (p *Port) present() error {
	if err := p.plug(); err != nil {
		return err
	}
	p.entry().Limit(p.In, p.Out)
	for _, a := range p.owned {
		if err := p.member.sw.tables.Own(a, p.n, p.has(a)); err != nil {
			return err
		}
		if err := p.announce(a); err != nil {
			return err
		}
	}
	return nil
}

// own makes an address the port's.
func (p *Port) own(a netip.Addr) error {
	if err := p.member.sw.tables.Own(a, p.n, p.has(a)); err != nil {
		return err
	}
	if at, has := slices.BinarySearchFunc(p.owned, a, netip.Addr.Compare); !has {
		p.owned = slices.Insert(p.owned, at, a)
	}
	return nil
}

// has tells whether the instance has configured an address, as far as is known.
func (p *Port) has(a netip.Addr) bool { return !slices.Contains(p.absent, a) }

func (p *Port) disown(a netip.Addr) error {
	if at, has := slices.BinarySearchFunc(p.owned, a, netip.Addr.Compare); has {
		p.owned = slices.Delete(p.owned, at, at+1)
	}
	return p.member.sw.tables.Disown(a, p.n)
}

// comeBack brings a member that was parked back into an instance.
func (m *Member) comeBack(spec Spec, pid int, closed bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.parked {
		return fmt.Errorf("%s is at the switch already", spec.ID)
	}
	in, err := enter(pid)
	if err != nil {
		return err
	}
	defer in.close()
	if err := m.change(spec); err != nil {
		return err
	}
	for _, p := range m.ports {
		if err := p.unpark(in); err != nil {
			return err
		}
	}
	if err := m.connect(in, pid); err != nil {
		return err
	}
	if closed {
		return nil
	}
	return m.release()
}

// Adopt takes over an instance that an earlier daemon attached, and whose network namespace is that of a process; 0: it was parked.
// What is missing is made anew.
func (s *Switch) Adopt(spec Spec, pid int) (*Member, error) {
	m := &Member{sw: s, spec: spec}
	for _, i := range spec.Interfaces {
		p := &Port{Interface: i, member: m}
		if p.MAC == ([6]byte{}) {
			p.MAC = s.usualMAC(spec.ID, i.Name)
		}
		m.ports = append(m.ports, p)
	}
	s.mu.Lock()
	s.members[spec.ID] = m
	s.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	first := uint32(0)
	for _, p := range m.ports {
		if err := p.find(first); err != nil {
			return nil, err
		}
		if first == 0 {
			first = p.n
		}
		for _, a := range p.Addresses {
			if err := p.own(a); err != nil {
				return nil, err
			}
		}
	}
	if pid == 0 {
		return m, m.stayParked()
	}
	in, err := enter(pid)
	if err != nil {
		return nil, err
	}
	defer in.close()
	m.pid = pid
	for _, p := range m.ports {
		if _, err := s.net.LinkByName(p.hostName()); err != nil {
			if err := ignoreGone(err); err != nil {
				return nil, err
			}
			continue // the instance has removed its own
		}
		if err := p.present(); err != nil {
			return nil, err
		}
	}
	return m, m.startWatch(in)
}

// stayParked connects links whose other ends are here, and makes those that are not there. The caller holds m.mu.
func (m *Member) stayParked() error {
	m.parked = true
	for _, p := range m.ports {
		p.absent = nil
		if _, err := m.sw.net.LinkByName(p.hostName()); err != nil {
			if err = ignoreGone(err); err == nil {
				err = p.makeParked()
			}
			if err != nil {
				return err
			}
		}
		if err := p.close(plane.GateIn | plane.GateOut); err != nil {
			return err
		}
		if err := p.present(); err != nil {
			return err
		}
	}
	return nil
}

// find finds the port's entry by its link, or makes one.
func (p *Port) find(first uint32) error {
	s := p.member.sw
	host, err := s.net.LinkByName(p.hostName())
	if err == nil {
		p.n = s.tables.Of(host.Attrs().Index)
	} else if err = ignoreGone(err); err != nil {
		return err
	}
	if p.n != 0 {
		e := p.entry()
		e.Keep(0, 0) // the tap has gone with who had it
		if gate := e.Gate(); gate != 0 {
			return p.close(gate)
		}
		return nil
	}
	p.n, err = s.claim(first)
	return err
}

// change gives a parked member the interfaces of another configuration. They are the same, with other addresses perhaps.
func (m *Member) change(spec Spec) error {
	if len(spec.Interfaces) != len(m.ports) {
		return fmt.Errorf("%s is parked with other interfaces: release it first", spec.ID)
	}
	for n, p := range m.ports {
		i := spec.Interfaces[n]
		if i.Name != p.Name {
			return fmt.Errorf("%s is parked with other interfaces: release it first", spec.ID)
		}
		if i.MAC == ([6]byte{}) {
			i.MAC = p.MAC
		}
		p.Interface = i
		for _, a := range slices.Clone(p.owned) {
			if !slices.Contains(i.Addresses, a) {
				if err := errors.Join(p.revoke(a), p.disown(a)); err != nil {
					return err
				}
			}
		}
		for _, a := range i.Addresses {
			if err := p.own(a); err != nil {
				return err
			}
		}
	}
	m.spec = spec
	return nil
}

// translates tells whether the host translates addresses or ports for the instance.
func (s *Spec) translates() bool {
	return slices.ContainsFunc(s.Interfaces, func(i Interface) bool { return i.NAT || len(i.Forwards) > 0 })
}

// Remove takes the instance off the switch: its addresses are not announced any more, its links go.
func (m *Member) Remove() error {
	return errors.Join(m.remove(), m.sw.translateFor(&m.spec))
}

// translateFor has the host translate anew if that matters to an instance.
func (s *Switch) translateFor(spec *Spec) error {
	if !spec.translates() {
		return nil
	}
	return s.translate()
}

func (m *Member) remove() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopWatch()
	var errs []error
	for _, p := range m.ports {
		for _, a := range slices.Clone(p.owned) {
			errs = append(errs, p.revoke(a), p.disown(a))
		}
		if host, err := m.sw.net.LinkByName(p.hostName()); err == nil {
			errs = append(errs, ignoreGone(m.sw.net.LinkDel(host))) // the other end goes with it
		} else {
			errs = append(errs, ignoreGone(err))
		}
		if p.tap != nil {
			p.tap.close()
			p.tap = nil
		}
		errs = append(errs, m.sw.tables.Forget(p.n))
	}
	m.ports = nil
	m.sw.mu.Lock()
	if m.sw.members[m.spec.ID] == m {
		delete(m.sw.members, m.spec.ID)
	}
	m.sw.mu.Unlock()
	return errors.Join(errs...)
}

// Park takes the links out of the instance, which is about to end, and keeps them: its addresses stay its own and
// announced, and what arrives is kept, as far as there is room. Nothing that the instance still sends gets out.
func (m *Member) Park() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.parked {
		return nil
	}
	m.stopWatch()
	for _, p := range m.ports {
		if err := p.close(plane.GateIn | plane.GateOut); err != nil {
			return err
		}
	}
	if in, err := enter(m.pid); err == nil { // else it has ended already, and its links with it
		defer in.close()
		for _, p := range m.ports {
			if err := p.park(in); err != nil {
				return err
			}
		}
	}
	m.pid = 0
	return m.stayParked()
}

// close lets go of the member, which stays. m is of no use any more.
func (m *Member) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopWatch()
	for _, p := range m.ports {
		if p.tap != nil {
			p.tap.close()
		}
	}
	m.ports = nil
}

// Counters are those of one interface.
type Counters struct {
	Name      string       `json:"name"`           // inside
	Link      string       `json:"link,omitempty"` // the host's end
	Addresses []netip.Addr `json:"addresses"`
	plane.Counters
}

// Interfaces returns the interfaces as they are inside.
func (m *Member) Interfaces() (all []Interface) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.ports {
		all = append(all, p.Interface)
	}
	return all
}

// Counters returns those of all interfaces.
func (m *Member) Counters() []Counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Counters
	for _, p := range m.ports {
		all = append(all, Counters{Name: p.Name, Link: p.hostName(), Addresses: slices.Clone(p.owned), Counters: p.entry().Counters()})
	}
	return all
}
