// Package lan is the host's layer-3 switch as its instances use it: there from the first that has an interface at it, and with
// what their configurations mean at it.
package lan

import (
	"fmt"
	"log/slog"
	"sync"

	"vps/config"
	"vps/dump"
	"vps/ifvps"
	"vps/ifvps/nat"
)

// LAN is the switch of one home. Its methods may be called by several goroutines.
type LAN struct {
	Key string // part of the name of every link: [ifvps.Open]
	Log *slog.Logger

	mu sync.Mutex
	sw *ifvps.Switch // nil: nobody has wanted it yet
}

// open returns the switch, which is there from then on.
func (l *LAN) open() (*ifvps.Switch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sw != nil {
		return l.sw, nil
	}
	var err error
	l.sw, err = ifvps.Open(l.Key, l.Log)
	return l.sw, err
}

// opened returns the switch if it is there, else nil.
func (l *LAN) opened() *ifvps.Switch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sw
}

// Close lets go of the switch, which goes on.
func (l *LAN) Close() error {
	if sw := l.opened(); sw != nil {
		return sw.Close()
	}
	return nil
}

// Tend builds anew what was removed of the switch.
func (l *LAN) Tend() error {
	if sw := l.opened(); sw != nil {
		return sw.Tend()
	}
	return nil
}

// Settle removes what an earlier daemon left of instances that are gone, when those that are there have been adopted.
func (l *LAN) Settle() error {
	sw := l.opened()
	if sw == nil {
		left, err := ifvps.Links(l.Key)
		if err != nil || !left {
			return err
		}
		if sw, err = l.open(); err != nil {
			return err
		}
	}
	return sw.Settle()
}

// Attach gives an instance, whose init is given by its pid here, the interfaces of its configuration, as interfaces of the host's
// were in a snapshot. closed says that nothing passes them yet.
func (l *LAN) Attach(cfg *config.Config, were []*dump.Interface, init int, closed bool) (*ifvps.Member, error) {
	sw, err := l.open()
	if err != nil {
		return nil, err
	}
	m, err := sw.Attach(spec(cfg, were), init, closed)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	return m, nil
}

// Adopt takes over what an earlier daemon attached; init is 0 if that is parked.
func (l *LAN) Adopt(cfg *config.Config, init int) (*ifvps.Member, error) {
	sw, err := l.open()
	if err != nil {
		return nil, err
	}
	m, err := sw.Adopt(spec(cfg, nil), init)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	return m, nil
}

// spec is what a configuration gives an instance at the switch.
func spec(cfg *config.Config, were []*dump.Interface) ifvps.Spec {
	s := ifvps.Spec{ID: cfg.Name, Networks: cfg.Networks, Silent: cfg.NetworkAnnounce != ""}
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
		s.Interfaces = append(s.Interfaces, one)
	}
	return s
}
