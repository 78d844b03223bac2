package instance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vps/account"
	"vps/config"
	"vps/instance/inside"
	"vps/priv"
)

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
		return hostInfo()
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
	info := Info{
		ID: i.id, State: i.rec.State, Operation: i.verb,
		FSRoot: i.cfg.Root, Hostname: i.cfg.UTSName(), Init: strings.Join(i.cfg.Init, " "), FirstUID: i.rec.FirstUID,
		Created: i.rec.Created, Started: i.rec.Started,
		Runs: i.rec.Starts, Restores: i.rec.Restores, Restarts: i.rec.Restarts, ExitStatus: i.rec.Exit,
	}
	if i.rec.Saved != nil {
		info.Saved = i.rec.Saved.File
	}
	info.Lost = i.rec.Lost
	if i.filling != nil {
		info.Missing, _ = i.filling.Progress()
	}
	group := i.group
	if i.cell != nil {
		info.PID = i.cell.Init.PID
	}
	i.mu.Unlock()
	if group == nil {
		return info
	}
	// What ends meanwhile leaves zeros.
	pids, _ := group.Procs()
	info.Processes = len(pids)
	for _, pid := range pids {
		if s, err := inside.ReadStat(pid); err == nil {
			info.Threads += s.Threads
		}
	}
	info.CPUNanos = cgroupCPU(group)
	if usage, err := group.Usage(); err == nil {
		for _, u := range usage {
			if u.Resource == account.Phys {
				info.MemoryBytes = u.Current
			}
		}
	}
	return info
}

// cgroupCPU is the processor time of a group, cgroup-v2.rst.
func cgroupCPU(g *account.Group) uint64 {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(g.Root()), "cpu.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			return n * 1000
		}
	}
	return 0
}

// Args tells what an instance may do: networks, privileges, limits.
func (h *Host) Args(id string) (Arguments, error) {
	if id == Host0 {
		a := Arguments{Networks: []string{"0.0.0.0/0", "::/0"}}
		a.privileges(priv.Host())
		return a, nil
	}
	i, err := h.get(id)
	if err != nil {
		return Arguments{}, fmt.Errorf("argshow: %w", err)
	}
	i.mu.Lock()
	cfg, group := i.cfg, i.group
	i.mu.Unlock()
	var a Arguments
	for _, n := range cfg.Interfaces {
		for _, addr := range n.Addresses {
			a.Networks = append(a.Networks, fmt.Sprintf("%s/%d", addr, addr.BitLen()))
		}
	}
	for _, n := range cfg.Networks {
		a.Networks = append(a.Networks, n.String())
	}
	set, err := privileges(cfg)
	if err != nil {
		return a, fmt.Errorf("argshow %s: %w", id, err)
	}
	a.privileges(set)
	return a, a.resources(cfg, group)
}

func (a *Arguments) privileges(set *priv.Set) {
	for _, e := range set.List() {
		switch e.State {
		case priv.Allow:
			a.Allow = append(a.Allow, e.Name)
		case priv.Nosys:
			a.Nosys = append(a.Nosys, e.Name)
		default:
			a.Deny = append(a.Deny, e.Name)
		}
	}
}

// resources lists what is measured, and what is configured.
func (a *Arguments) resources(cfg *config.Config, group *account.Group) error {
	var usage []account.Usage
	if group != nil {
		var err error
		if usage, err = group.Usage(); err != nil {
			return err
		}
	}
	for _, l := range cfg.Limits.All() {
		r := Resource{Name: l.Resource, Soft: l.Soft, Hard: l.Hard, Flag: "-"}
		if at := slices.IndexFunc(usage, func(u account.Usage) bool { return u.Resource == l.Resource }); at >= 0 {
			u := usage[at]
			r.Flag, r.Current, r.SoftHits, r.HardHits = string(u.Flag()), u.Current, u.SoftHits, u.HardHits
		}
		a.Resources = append(a.Resources, r)
	}
	return nil
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
