// Package view is what is shown of an instance: how it is, and what it may do.
package view

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"vps/account"
	"vps/config"
	"vps/ifvps"
	"vps/instance/blueprint"
	"vps/instance/inside"
	"vps/instance/registry"
	"vps/instance/vps0"
	"vps/priv"
)

// Info describes an instance.
type Info struct {
	ID          string               `json:"id"`
	State       registry.State       `json:"state"`
	Operation   string               `json:"operation,omitempty"` // what is under way
	FSRoot      string               `json:"fsroot"`
	Hostname    string               `json:"hostname"`
	Init        string               `json:"init"`
	PID         int                  `json:"pid,omitempty"` // init's, on the host
	FirstUID    int                  `json:"first_uid"`     // the host's id of the instance's 0
	Created     time.Time            `json:"created,omitzero"`
	Started     time.Time            `json:"started,omitzero"`
	Processes   int                  `json:"processes"`
	Threads     int                  `json:"threads"`
	CPUNanos    uint64               `json:"cpu_ns"`
	MemoryBytes uint64               `json:"memory_bytes"`
	Runs        int                  `json:"runs"`     // how often it was started
	Restores    int                  `json:"restores"` // how often it was restored
	Restarts    int                  `json:"restarts"` // by policy, in a row
	ExitStatus  *registry.ExitStatus `json:"exit_status,omitempty"`
	Saved       string               `json:"saved,omitempty"`         // the file with its memory, since the host went down
	Missing     uint64               `json:"missing_bytes,omitempty"` // of its memory, after a lazy restore
	Lost        string               `json:"lost,omitempty"`          // why memory of it cannot be read: who touches it gets SIGBUS
	Interfaces  []ifvps.Counters     `json:"interfaces,omitempty"`
	Parked      bool                 `json:"parked,omitempty"` // they are kept for it while it is dead
}

// Resource is a line of [Arguments]' table.
type Resource struct {
	Name     string `json:"name"`
	Flag     string `json:"flag"` // C above the soft limit now, X hard limit hit, x soft limit hit, _ none, - not measured and not enforced
	Current  uint64 `json:"current"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
	SoftHits uint64 `json:"soft_hits"`
	HardHits uint64 `json:"hard_hits"`
}

// Arguments are what an instance may do.
type Arguments struct {
	Networks  []string   `json:"networks"`
	Allow     []string   `json:"allow"`
	Deny      []string   `json:"deny"`
	Nosys     []string   `json:"nosys"`
	Resources []Resource `json:"resources"`
}

// Of describes an instance by its record and configuration, and by its control group, which is nil if it has no process.
func Of(rec *registry.Record, cfg *config.Config, group *account.Group) Info {
	info := Info{
		ID: cfg.Name, State: rec.State, FirstUID: rec.FirstUID,
		FSRoot: cfg.Root, Hostname: cfg.UTSName(), Init: strings.Join(cfg.Init, " "),
		Created: rec.Created, Started: rec.Started,
		Runs: rec.Starts, Restores: rec.Restores, Restarts: rec.Restarts, ExitStatus: rec.Exit, Lost: rec.Lost,
	}
	info.Parked = rec.Parked
	for _, i := range cfg.Interfaces {
		info.Interfaces = append(info.Interfaces, ifvps.Counters{Name: i.Name(), Addresses: i.Addresses})
	}
	if rec.Saved != nil {
		info.Saved = rec.Saved.File
	}
	if group != nil {
		info.measure(group)
	}
	return info
}

// Host describes the host as an instance of the given name.
func Host(name string) (Info, error) {
	h, err := vps0.Read()
	return Info{
		ID: name, State: registry.Running, FSRoot: "/", Hostname: h.Hostname, Init: h.Init, PID: 1, Runs: 1, Started: h.Booted,
		Processes: h.Processes, Threads: h.Threads, CPUNanos: h.CPU, MemoryBytes: h.Memory,
	}, err
}

// measure looks at the processes. What ends meanwhile leaves zeros.
func (info *Info) measure(group *account.Group) {
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

// May tells what an instance may do by its configuration, and what it uses of that.
func May(cfg *config.Config, group *account.Group) (Arguments, error) {
	var a Arguments
	for _, n := range cfg.Interfaces {
		for _, addr := range n.Addresses {
			a.Networks = append(a.Networks, fmt.Sprintf("%s/%d", addr, addr.BitLen()))
		}
	}
	for _, n := range cfg.Networks {
		a.Networks = append(a.Networks, n.String())
	}
	set, err := blueprint.Privileges(cfg)
	if err != nil {
		return a, err
	}
	a.privileges(set)
	return a, a.resources(cfg, group)
}

// HostMay tells what the host may do.
func HostMay() Arguments {
	a := Arguments{Networks: []string{"0.0.0.0/0", "::/0"}}
	a.privileges(priv.Host())
	return a
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
