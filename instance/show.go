package instance

import (
	"context"
	"fmt"

	"vps/instance/inside"
	"vps/instance/view"
)

// Events returns what happens from now on. The channel is closed when ctx or the host ends. A reader that is slow
// loses the oldest events.
func (h *Host) Events(ctx context.Context) <-chan Event { return h.events.Listen(ctx) }

// List describes all instances, by name; vps0 is not among them.
func (h *Host) List() []Info {
	h.mu.Lock()
	all := h.sorted()
	h.mu.Unlock()
	var list []Info
	for _, i := range all {
		if info := i.info(); info.State != "" {
			list = append(list, info)
		}
	}
	return list
}

// Show describes an instance, or the host, vps0.
func (h *Host) Show(id string) (Info, error) {
	if id == Host0 {
		return view.Host(Host0)
	}
	i, err := h.get(id)
	if err != nil {
		return Info{}, fmt.Errorf("show: %w", err)
	}
	info := i.info()
	if info.State == "" {
		return info, fmt.Errorf("show: %s: %w", id, ErrNotFound)
	}
	return info, nil
}

func (i *instance) info() Info {
	i.mu.Lock()
	rec, cfg, group, verb, pid, missing, member := i.rec, i.cfg, i.group, i.verb, 0, uint64(0), i.member
	if i.filling != nil {
		missing, _ = i.filling.Progress()
	}
	if i.cell != nil {
		pid = i.cell.Init.PID
	}
	i.mu.Unlock()
	info := view.Of(&rec, cfg, group)
	if member != nil {
		info.Interfaces = member.Counters()
	}
	info.ID, info.Operation, info.PID, info.Missing = i.id, verb, pid, missing
	return info
}

// Args tells what an instance may do: networks, privileges, limits.
func (h *Host) Args(id string) (Arguments, error) {
	if id == Host0 {
		return view.HostMay(), nil
	}
	i, err := h.get(id)
	if err != nil {
		return Arguments{}, fmt.Errorf("argshow: %w", err)
	}
	i.mu.Lock()
	cfg, group := i.cfg, i.group
	i.mu.Unlock()
	a, err := view.May(cfg, group)
	if err != nil {
		return a, fmt.Errorf("argshow %s: %w", id, err)
	}
	return a, nil
}

// Processes lists the processes of an instance by their pid inside.
func (h *Host) Processes(id string) ([]ProcessInfo, error) {
	i, err := h.get(id)
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	i.mu.Lock()
	group, c, first := i.group, i.cell, i.rec.FirstUID
	i.mu.Unlock()
	if group == nil || c == nil {
		return nil, nil
	}
	pids, err := group.Procs()
	if err != nil {
		return nil, fmt.Errorf("ps %s: %w", id, err)
	}
	return inside.Processes(pids, c.Init.PID, first), nil
}
