package instance

import (
	"context"
	"errors"
	"fmt"

	"vps/cell"
	"vps/ifvps"
	"vps/instance/lan"
	"vps/instance/registry"
	"vps/suspend"
)

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

// connect gives an instance, whose init is given by its pid here, its interfaces. Those of a restored one stay closed until it is
// resumed.
func (i *instance) connect(ctx context.Context, init int, b birth) error {
	if len(i.cfg.Interfaces) == 0 {
		return nil
	}
	m, err := i.host.lan.Attach(i.cfg, b.were, init, b.state == Restoring)
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.member, i.rec.Announced = m, true
	err = i.save()
	i.mu.Unlock()
	if err != nil {
		return err
	}
	return lan.Announce(ctx, i.cfg)
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
	return lan.Revoke(ctx, i.cfg)
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
	var err error
	i.member, err = i.host.lan.Adopt(i.cfg, init)
	return err
}

func (i *instance) adoptParked() error {
	if !i.rec.Parked {
		return nil
	}
	return i.adoptNetwork(0)
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
	all, err := lan.Networks(i.cfg, networks, remove)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
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
