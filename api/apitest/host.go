// Package apitest has a host for tests of the management interface: its instances are names with a state, and their
// commands run on the machine itself.
package apitest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"vps/api"
	"vps/config"
	"vps/instance"
)

// Time is when everything happens on a [Host].
var Time = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// Host is a backend without instances that run.
type Host struct {
	mu        sync.Mutex
	instances map[string]*instance.Info
	configs   map[string]*config.Config
	consoles  map[string]*console
	watchers  map[chan instance.Event]bool
	gate      chan struct{} // closed when snapshots may go on
}

var _ api.Backend = (*Host)(nil)

// New returns a host with instances of these names, which run.
func New(ids ...string) *Host {
	h := &Host{
		instances: make(map[string]*instance.Info),
		configs:   make(map[string]*config.Config),
		consoles:  make(map[string]*console),
		watchers:  make(map[chan instance.Event]bool),
	}
	for i, id := range ids {
		h.instances[id] = &instance.Info{
			ID: id, State: instance.Running, FSRoot: "/srv/" + id, Hostname: id, Init: "/sbin/init", PID: 1000 + i,
			FirstUID: 65536 * (i + 1), Created: Time, Started: Time, Processes: 3, Threads: 4, CPUNanos: 1_500_000_000,
			MemoryBytes: 5 << 20, Runs: 1,
		}
		h.consoles[id] = newConsole()
	}
	return h
}

// use calls f with an instance, if it is in one of the states, or in any if none are given.
func (h *Host) use(operation, id string, f func(*instance.Info) error, states ...instance.State) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.instances[id]
	if i == nil {
		return fmt.Errorf("%s: %w", id, instance.ErrNotFound)
	}
	if len(states) > 0 && !slices.Contains(states, i.State) {
		return &instance.StateError{ID: id, Operation: operation, State: i.State}
	}
	return f(i)
}

// become changes an instance's state and tells those who watch. The lock is held.
func (h *Host) become(i *instance.Info, state instance.State, what string, exit *instance.ExitStatus) {
	i.State, i.ExitStatus = state, exit
	for w := range h.watchers {
		w <- instance.Event{Time: Time, ID: i.ID, State: state, What: what, ExitStatus: exit}
	}
}

// List gives all instances in order of name.
func (h *Host) List() []instance.Info {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []instance.Info
	for _, i := range h.instances {
		all = append(all, *i)
	}
	slices.SortFunc(all, func(a, b instance.Info) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Show gives one instance.
func (h *Host) Show(id string) (info instance.Info, err error) {
	err = h.use("show", id, func(i *instance.Info) error { info = *i; return nil })
	return info, err
}

// Args gives the same for all.
func (h *Host) Args(id string) (instance.Arguments, error) {
	return instance.Arguments{
		Networks: []string{"10.0.0.1/32"}, Allow: []string{"CHOWN", "KILL"}, Nosys: []string{"KEYCTL"},
		Resources: []instance.Resource{{Name: "phys", Flag: "C", Current: 5 << 20, Soft: 4 << 20, Hard: 8 << 20, SoftHits: 2}},
	}, h.use("argshow", id, func(*instance.Info) error { return nil })
}

// Processes gives the same for all, with a command that tries to write to the reader's terminal.
func (h *Host) Processes(id string) ([]instance.ProcessInfo, error) {
	return []instance.ProcessInfo{
		{PID: 1, HostPID: 1000, User: "root", State: "S", Threads: 1, CPUNanos: 20_000_000, RSSBytes: 1 << 20, Command: "/sbin/init"},
		{PID: 7, PPID: 1, HostPID: 1007, UID: 33, User: "www", State: "R", Threads: 2, RSSBytes: 2 << 20, Command: "evil \x1b[2J\xff"},
	}, h.use("ps", id, func(*instance.Info) error { return nil }, instance.Running, instance.Suspended)
}

// Check finds a blocker in the instance that is named "blocked".
func (h *Host) Check(_ context.Context, id string) (instance.CheckReport, error) {
	r := instance.CheckReport{OK: true, Bytes: 12 << 20, Frozen: 9 * time.Millisecond}
	if id == "blocked" {
		r = instance.CheckReport{Blockers: []instance.Blocker{
			{PID: 214, Comm: "nginx", FD: 9, Object: "io_uring", Text: "pid 214 (nginx) fd 9: io_uring is not supported"},
		}}
	}
	return r, h.use("check", id, func(*instance.Info) error { return nil })
}

// Create makes an instance.
func (h *Host) Create(_ context.Context, id string, cfg *config.Config) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.create(id, cfg, instance.Created)
}

func (h *Host) create(id string, cfg *config.Config, state instance.State) error {
	if h.instances[id] != nil {
		return fmt.Errorf("%w: %s", instance.ErrExists, id)
	}
	if cfg == nil {
		return fmt.Errorf("%w: %s has no configuration", instance.ErrNotFound, id)
	}
	h.instances[id] = &instance.Info{ID: id, FSRoot: cfg.Root, Init: cfg.Init[0], Created: Time}
	h.configs[id], h.consoles[id] = cfg, newConsole()
	h.become(h.instances[id], state, "create", nil)
	return nil
}

// Start makes an instance run.
func (h *Host) Start(_ context.Context, id string, cfg *config.Config) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.instances[id]
	switch {
	case i == nil:
		return h.create(id, cfg, instance.Running)
	case i.State != instance.Created && i.State != instance.Dead:
		return &instance.StateError{ID: id, Operation: "start", State: i.State}
	}
	h.become(i, instance.Running, "start", nil)
	return nil
}

// Stop ends an instance. The one that is named "stuck" takes its whole timeout.
func (h *Host) Stop(ctx context.Context, id string, timeout time.Duration) error {
	if id == "stuck" {
		select {
		case <-time.After(timeout):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return h.use("stop", id, func(i *instance.Info) error {
		h.become(i, instance.Dead, "stop", &instance.ExitStatus{Reason: "stop", Time: Time})
		h.consoles[id].end()
		return nil
	}, instance.Running)
}

// Restart is Stop and Start.
func (h *Host) Restart(ctx context.Context, id string, timeout time.Duration) error {
	if err := h.Stop(ctx, id, timeout); err != nil {
		return err
	}
	return h.Start(ctx, id, nil)
}

// Remove forgets a dead instance.
func (h *Host) Remove(_ context.Context, id string) error {
	return h.use("rm", id, func(*instance.Info) error { delete(h.instances, id); return nil }, instance.Dead)
}

// Kill ends an instance.
func (h *Host) Kill(_ context.Context, id string, signal int) error {
	return h.use("kill", id, func(i *instance.Info) error {
		h.become(i, instance.Dead, "exit", &instance.ExitStatus{Code: 128 + signal, Signal: "SIGKILL", Reason: "signal", Time: Time})
		return nil
	}, instance.Running)
}

// Wait waits for an instance's end.
func (h *Host) Wait(ctx context.Context, id string) (status instance.ExitStatus, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := h.Events(ctx)
	for {
		info, err := h.Show(id)
		if err != nil {
			return status, err
		}
		if info.ExitStatus != nil {
			return *info.ExitStatus, nil
		}
		if _, ok := <-events; !ok {
			return status, ctx.Err()
		}
	}
}

// Suspend stops an instance.
func (h *Host) Suspend(_ context.Context, id string) error {
	return h.use("suspend", id, func(i *instance.Info) error {
		h.become(i, instance.Suspended, "suspend", nil)
		return nil
	}, instance.Running)
}

// Resume lets it go on.
func (h *Host) Resume(_ context.Context, id string) error {
	return h.use("resume", id, func(i *instance.Info) error {
		h.become(i, instance.Running, "resume", nil)
		return nil
	}, instance.Suspended)
}

// Abort ends a suspended instance.
func (h *Host) Abort(_ context.Context, id string) error {
	return h.use("abort", id, func(i *instance.Info) error {
		h.become(i, instance.Dead, "abort", &instance.ExitStatus{Code: 137, Signal: "SIGKILL", Reason: "abort", Time: Time})
		return nil
	}, instance.Suspended)
}

// AllowNetworks changes nothing.
func (h *Host) AllowNetworks(_ context.Context, id, _ string, _ bool) error {
	return h.use("ipnet", id, func(*instance.Info) error { return nil }, instance.Running)
}

// MoveInterface changes nothing.
func (h *Host) MoveInterface(_ context.Context, id, _, _ string) error {
	return h.use("ifmove", id, func(*instance.Info) error { return nil }, instance.Running)
}

// Park ends a suspended instance.
func (h *Host) Park(ctx context.Context, id string) error { return h.Abort(ctx, id) }

// Release changes nothing.
func (h *Host) Release(_ context.Context, id string) error {
	return h.use("release", id, func(*instance.Info) error { return nil }, instance.Dead)
}

// Events gives what happens from now on, until ctx ends.
func (h *Host) Events(ctx context.Context) <-chan instance.Event {
	c := make(chan instance.Event, 100)
	h.mu.Lock()
	h.watchers[c] = true
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		delete(h.watchers, c)
		h.mu.Unlock()
		close(c)
	})
	return c
}

// Logs gives what the console has shown.
func (h *Host) Logs(_ context.Context, id string, opt instance.LogOptions) (r io.ReadCloser, err error) {
	err = h.use("logs", id, func(*instance.Info) error {
		r = h.consoles[id].reader(opt.Follow)
		return nil
	})
	return r, err
}
