package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"vps/config"
	"vps/dump"
	"vps/ifvps"
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

// atSwitch is what a configuration gives an instance at the switch.
func atSwitch(cfg *config.Config, ports []*dump.SwitchPort) ifvps.Spec {
	spec := ifvps.Spec{ID: cfg.Name, Networks: cfg.Networks}
	for _, c := range cfg.Interfaces {
		one := ifvps.Interface{Name: c.Name(), Addresses: c.Addresses}
		for _, p := range ports {
			if p.GetName() == one.Name && len(p.GetMac()) == len(one.MAC) {
				one.Index, one.MAC = int(p.GetIfindex()), [6]byte(p.GetMac())
			}
		}
		spec.Interfaces = append(spec.Interfaces, one)
	}
	return spec
}

// asRecorded is what a snapshot says of interfaces.
func asRecorded(all []ifvps.Interface) []*dump.SwitchPort {
	var ports []*dump.SwitchPort
	for _, i := range all {
		ports = append(ports, &dump.SwitchPort{Name: i.Name, Ifindex: uint32(i.Index), Mac: i.MAC[:]})
	}
	return ports
}

// connect gives an instance, whose init is given by its pid here, its interfaces. Those of a restored one stay closed until it is
// resumed.
func (i *instance) connect(init int, b birth) error {
	if len(i.cfg.Interfaces) == 0 {
		return nil
	}
	sw, err := i.host.lan.open(i.host.key, i.host.log)
	if err != nil {
		return err
	}
	m, err := sw.Attach(atSwitch(i.cfg, b.ports), init, b.state == Restoring)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.member = m
	return nil
}

// disconnect is the opposite of connect. What is parked stays so.
func (i *instance) disconnect() error {
	i.mu.Lock()
	m := i.member
	if m != nil && !i.rec.Parked {
		i.member = nil
	}
	i.mu.Unlock()
	switch {
	case m == nil:
		return nil
	case i.rec.Parked:
		return m.Park()
	}
	return m.Remove()
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
