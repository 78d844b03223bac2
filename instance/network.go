package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"vps/cell"
	"vps/config"
	"vps/dump"
	"vps/ifvps"
	"vps/ifvps/nat"
	"vps/instance/blueprint"
	"vps/instance/registry"
	"vps/suspend"
)

// lan is the host's layer-3 switch, which is there when the first instance has an interface at it.
type lan struct {
	mu sync.Mutex
	sw *ifvps.Switch
}

func (l *lan) open(key string, log *slog.Logger) (*ifvps.Switch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sw != nil {
		return l.sw, nil
	}
	var err error
	l.sw, err = ifvps.Open(key, log)
	return l.sw, err
}

func (l *lan) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sw == nil {
		return nil
	}
	return l.sw.Close()
}

// tend builds anew what was removed of the switch.
func (l *lan) tend() error {
	l.mu.Lock()
	sw := l.sw
	l.mu.Unlock()
	if sw == nil {
		return nil
	}
	return sw.Tend()
}

// network is what is held while the instance stands still; nil if there is nothing.
func (i *instance) network() suspend.Network {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.port()
}

// port is network for who holds i.mu.
func (i *instance) port() suspend.Network {
	if i.member == nil {
		return nil
	}
	return i.member
}

// atSwitch is what a configuration gives an instance at the switch, as interfaces of the host's were in a snapshot.
func atSwitch(cfg *config.Config, were []*dump.Interface) ifvps.Spec {
	spec := ifvps.Spec{ID: cfg.Name, Networks: cfg.Networks, Silent: cfg.NetworkAnnounce != ""}
	for _, c := range cfg.Interfaces {
		one := ifvps.Interface{Name: c.Name(), Addresses: c.Addresses}
		one.NAT, one.In, one.Out = c.NAT, c.Bandwidth.In, c.Bandwidth.Out
		for _, f := range c.Forwards {
			one.Forwards = append(one.Forwards, nat.Forward{UDP: f.Protocol == "udp", Host: f.Host, Port: f.Port, Inside: f.Inside})
		}
		for _, w := range were {
			if w.GetName() == one.Name && len(w.GetAddress()) == len(one.MAC) {
				one.Index, one.MAC = int(w.GetIndex()), [6]byte(w.GetAddress())
			}
		}
		spec.Interfaces = append(spec.Interfaces, one)
	}
	return spec
}

// connect gives an instance, whose init is given by its pid here, its interfaces. Those of a restored one stay closed until it is
// resumed.
func (i *instance) connect(ctx context.Context, init int, b birth) error {
	if len(i.cfg.Interfaces) == 0 {
		return nil
	}
	sw, err := i.host.lan.open(i.host.key, i.host.log)
	if err != nil {
		return err
	}
	m, err := sw.Attach(atSwitch(i.cfg, b.were), init, b.state == Restoring)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	i.mu.Lock()
	i.member, i.rec.Announced = m, true
	err = i.save()
	i.mu.Unlock()
	if err != nil {
		return err
	}
	return i.tell(ctx, "NETWORK_ANNOUNCE", i.cfg.NetworkAnnounce)
}

// tell runs a command that announces the instance's addresses, or revokes them.
func (i *instance) tell(ctx context.Context, key, command string) error {
	var all []string
	for _, n := range i.cfg.Interfaces {
		for _, a := range n.Addresses {
			all = append(all, a.String())
		}
	}
	return blueprint.Command(ctx, i.cfg, key, command, "VPS_ADDRESSES="+strings.Join(all, " "))
}

// revoke takes back what was announced.
func (i *instance) revoke() error {
	i.mu.Lock()
	announced := i.rec.Announced
	i.rec.Announced = false
	i.mu.Unlock()
	if !announced {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
	defer cancel()
	return i.tell(ctx, "NETWORK_REVOKE", i.cfg.NetworkRevoke)
}

// disconnect is the opposite of connect. What is parked stays so.
func (i *instance) disconnect() error {
	return errors.Join(i.moveBack(), i.leave())
}

// leave takes the instance off the switch.
func (i *instance) leave() error {
	i.mu.Lock()
	m := i.member
	if m != nil && !i.rec.Parked {
		i.member = nil
	}
	i.mu.Unlock()
	switch {
	case i.rec.Parked && m != nil:
		return m.Park()
	case i.rec.Parked:
		return nil
	case m == nil:
		return i.revoke()
	}
	return errors.Join(i.revoke(), m.Remove())
}

// park has the instance's addresses kept for it when it has ended.
func (i *instance) park() error {
	i.mu.Lock()
	m := i.member
	i.mu.Unlock()
	if m == nil {
		return nil
	}
	if err := m.Park(); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec.Parked = true
	return i.save()
}

// Park ends a suspended instance, whose memory is in a safe place, as Abort does. Its addresses are kept for it: what speaks to them
// hears nothing until it is restored or started, or they are released.
func (h *Host) Park(ctx context.Context, id string) error {
	return h.audit(ctx, "park", id, h.change("park", id, Suspended, func(i *instance) error {
		if err := i.park(); err != nil {
			return err
		}
		return i.end(ctx, registry.ReasonAbort, func(*cell.Cell) error { return i.vanish() })
	}))
}

// releaseParked gives up what is kept for a dead instance.
func (i *instance) releaseParked() error {
	i.mu.Lock()
	parked := i.rec.Parked
	i.rec.Parked = false
	i.mu.Unlock()
	if !parked {
		return nil
	}
	err := i.disconnect()
	i.mu.Lock()
	defer i.mu.Unlock()
	return errors.Join(err, i.save())
}

// adoptNetwork takes over what an earlier daemon connected.
func (i *instance) adoptNetwork(init int) error {
	if len(i.cfg.Interfaces) == 0 {
		return nil
	}
	sw, err := i.host.lan.open(i.host.key, i.host.log)
	if err != nil {
		return err
	}
	i.member, err = sw.Adopt(atSwitch(i.cfg, nil), init)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return nil
}

func (i *instance) adoptParked() error {
	if !i.rec.Parked {
		return nil
	}
	return i.adoptNetwork(0)
}

// settleNetwork removes what an earlier daemon left of instances that are gone.
func (h *Host) settleNetwork() error {
	if h.lan.sw == nil {
		left, err := ifvps.Links(h.key)
		if err != nil || !left {
			return err
		}
		if _, err := h.lan.open(h.key, h.log); err != nil {
			return err
		}
	}
	return h.lan.sw.Settle()
}

// Release gives up the addresses that are kept for a dead instance: they are not announced any more.
func (h *Host) Release(ctx context.Context, id string) error {
	return h.audit(ctx, "release", id, h.change("release", id, Dead, func(i *instance) error {
		if !i.rec.Parked {
			return fmt.Errorf("%w: nothing is kept for it", ErrState)
		}
		return i.releaseParked()
	}))
}

// AllowNetworks says in which networks, separated by commas, an instance may have addresses, or that it may not any more.
func (h *Host) AllowNetworks(ctx context.Context, id, networks string, remove bool) error {
	verb := "ipnet add " + networks
	if remove {
		verb = "ipnet rem " + networks
	}
	i, done, err := h.claimAny(verb, id)
	if err == nil {
		defer done()
		if err = i.allow(networks, remove); err != nil {
			err = fmt.Errorf("ipnet %s: %w", id, err)
		}
	}
	return h.audit(ctx, verb, id, err)
}

// claimAny begins an operation on an instance in any state that lasts.
func (h *Host) claimAny(verb, id string) (i *instance, done func(), err error) {
	if i, err = h.get(id); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", verb, err)
	}
	done, err = i.begin(verb, Created, Running, Suspended, Dead)
	return i, done, err
}

func (i *instance) allow(networks string, remove bool) error {
	named, err := config.Default(i.id).With("IP_NETWORKS", networks)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	all := slices.Clone(i.cfg.Networks)
	for _, n := range named.Networks {
		at := slices.Index(all, n)
		switch {
		case remove && at < 0:
			return fmt.Errorf("%w: %v is not among its networks", ErrInvalid, n)
		case remove:
			all = slices.Delete(all, at, at+1)
		case at >= 0:
			return fmt.Errorf("%w: %v is among its networks already", ErrInvalid, n)
		default:
			all = append(all, n)
		}
	}
	i.mu.Lock()
	cfg := *i.cfg
	cfg.Networks = all
	i.cfg = &cfg
	m := i.member
	err = i.save()
	i.mu.Unlock()
	if m != nil {
		err = errors.Join(err, m.Allow(all))
	}
	return err
}

// MoveInterface gives an instance an interface of the host's, under another name or, with an empty one, its own. When the instance
// ends, the interface comes back.
func (h *Host) MoveInterface(ctx context.Context, id, name, inside string) error {
	verb := "ifmove " + name
	return h.audit(ctx, verb, id, h.change(verb, id, Running, func(i *instance) error {
		if name == "lo" || ifvps.IsLink(h.key, name) {
			return fmt.Errorf("%w: %s cannot be moved", ErrInvalid, name)
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.cell == nil {
			return &StateError{ID: i.id, Operation: verb, State: i.rec.State} // it has just ended
		}
		if i.space == nil {
			var err error
			if i.space, err = ifvps.OpenNamespace(i.cell.Init.PID); err != nil {
				return err
			}
		}
		moved, err := i.space.MoveIn(name, inside)
		if err != nil {
			return err
		}
		i.rec.Moved = append(i.rec.Moved, moved)
		return i.save()
	}))
}

// moveBack takes the host's interfaces back.
func (i *instance) moveBack() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.space == nil {
		i.rec.Moved = nil
		return nil
	}
	var errs []error
	for _, m := range i.rec.Moved {
		errs = append(errs, i.space.MoveOut(m))
	}
	errs = append(errs, i.space.Close())
	i.space, i.rec.Moved = nil, nil
	return errors.Join(errs...)
}
