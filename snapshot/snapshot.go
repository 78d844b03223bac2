// Package snapshot takes an instance apart: it has the order in which everything is found, asked and written.
//
//	probe      walk everything while the instance runs; refuse now, by name
//	copy       memory, in rounds, while the instance runs
//	hold       freeze, seize every task                            ─┐
//	ask        each process says what only it can tell              │ frozen
//	write      general info, mounts, processes, descriptors         │
//	pages      those that have changed since they were copied       │
//	let go     the instance goes on, or stays suspended            ─┘
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"vps/dump"
	"vps/kmem"
	"vps/object"
	"vps/object/file"
	"vps/object/ipc"
	"vps/object/keyring"
	"vps/object/kinds"
	"vps/object/memory"
	"vps/object/mount"
	"vps/object/network"
	"vps/object/task"
	"vps/pager"
	"vps/suspend"
)

// Source is the instance of which a snapshot is taken.
type Source struct {
	Group   suspend.Group
	Network suspend.Network // nil: none
	Init    int             // the pid of its init, here
	// Info is what only the manager knows; the rest of the record is filled in.
	Info      *dump.Instance
	Settings  map[string]string // of its network, that are others at the moment only
	Standard  []string          // mount points that the manager makes at every start
	Externals file.Externals
	Restarts  *task.RestartReader // nil: the rest of an interrupted sleep is not known
	Kernel    *kmem.Reader        // nil: what only the kernel's memory tells is refused
	Flags     *memory.Flags       // nil: mappings take longer to read
	Facts     *task.FactReader    // nil: every thread is asked
	// Filters is the number of seccomp filters that the manager has installed in every process.
	Filters int
	Copy    Way
	// Progress is told of each round, from 1 on; it may be nil.
	Progress func(n int, r Round)
}

// Report is what a snapshot cost.
type Report struct {
	Processes, Threads int
	Rounds             []Round       // copied before
	Stopped            time.Duration // for which a process stood still, at most, to be tracked
	Frozen             time.Duration // from the freeze until the instance was let go, or the snapshot was written
	Phases             []Phase       // of the frozen time, in their order
}

// Phase is a part of the frozen time.
type Phase struct {
	Name string
	Took time.Duration
}

// clock measures phases.
type clock struct {
	last   time.Time
	phases []Phase
}

func (c *clock) done(name string) {
	now := time.Now()
	c.phases = append(c.phases, Phase{name, now.Sub(c.last)})
	c.last = now
}

// Take writes a snapshot of an instance to w, which the caller closes. suspended says in which state it is left; one that was
// found suspended stays suspended, and so does whatever state it was found in if the snapshot fails.
func Take(ctx context.Context, src *Source, w *dump.Writer, suspended bool) (Report, error) {
	read := later(func() (map[string]string, error) { return network.ReadSysctls(src.Init) })
	defer read()
	procs, refusals := probe(src)
	defer procs.close()
	if err := errors.Join(confirm(src, refusals)...); err != nil {
		return Report{}, err
	}
	pages := pager.NewCopy(w)
	defer pages.Close()
	report := &Report{}
	if err := prepare(ctx, src, pages, procs, report); err != nil {
		return *report, err
	}
	for end := time.Now().Add(patience); ; {
		busy, err := takeOnce(ctx, src, w, pages, read, suspended, report)
		if !busy || time.Now().After(end) {
			return *report, err
		}
		if frozen, ferr := src.Group.Frozen(); ferr != nil || frozen {
			return *report, errors.Join(err, ferr) // it was suspended
		}
		pages.Forget()
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return *report, errors.Join(err, context.Cause(ctx))
		}
	}
}

// For how long an instance may be found in a state that cannot be dumped but does not last, and how long it runs between looks.
const (
	patience  = 2 * time.Second
	busyPause = 5 * time.Millisecond
)

// settings returns those of the network, which take long to read: that begins before the instance is stopped.
type settings func() (map[string]string, error)

// later begins to work, and returns what waits for the end of it.
func later[T any](work func() (T, error)) func() (T, error) {
	var v T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v, err = work()
	}()
	return func() (T, error) {
		<-done
		return v, err
	}
}

// takeOnce stops the instance once. busy says that it found what cannot be dumped at the moment, and has written nothing since the
// instance was stopped.
func takeOnce(ctx context.Context, src *Source, w *dump.Writer, pages *pager.Copy, settings settings, suspended bool, report *Report) (busy bool, err error) {
	begin := time.Now()
	clock := clock{last: begin}
	err = suspend.Hold(ctx, src.Group, src.Network, func() bool { return suspended }, func(in *suspend.Instance) error {
		clock.done("stop")
		t := &taker{ctx: ctx, src: src, w: w, memory: pages, settings: settings, in: in, clock: &clock}
		defer t.close()
		suspended = suspended || in.Suspended
		err := t.take()
		report.Processes, report.Threads = len(t.procs), t.threads
		busy = errors.Is(err, object.ErrBusy) && !t.writing
		return err
	})
	clock.done("let go")
	report.Frozen = time.Since(begin)
	if err == nil {
		err = pages.Finish(ctx)
	}
	if suspended {
		clock.done("write pages")
		report.Frozen = time.Since(begin)
	}
	report.Phases = clock.phases
	return busy, err
}

// prepare copies what can be copied before the instance is frozen.
func prepare(ctx context.Context, src *Source, pages *pager.Copy, procs crowd, report *Report) error {
	frozen, err := src.Group.Frozen()
	if err != nil || frozen {
		return err
	}
	if src.Copy != Frozen {
		switch err := canTrack(); {
		case err == nil:
			if err := copyRounds(ctx, src, pages, procs, report); err != nil {
				return err
			}
		case src.Copy == Rounds:
			return fmt.Errorf("copy in rounds: %w", err)
		}
	}
	return reserve(src, pages, procs, len(report.Rounds) > 0)
}

// A process that executes a program, or has just been born by vfork(2), looks strange for a moment: what stands in the way
// is what does so in every one of some looks.
const (
	probeLooks = 4
	probePause = 10 * time.Millisecond
)

// Probe returns everything that stands in the way of a snapshot, as [object.Refusal] where it can be named. The instance
// may run, and change meanwhile: what ends during the probe is passed over.
func Probe(src *Source) []error {
	procs, refusals := probe(src)
	procs.close()
	return confirm(src, refusals)
}

// confirm returns those of the refusals of a first look that are there in further ones. What is likely to pass is looked at longer.
func confirm(src *Source, refusals []error) []error {
	begin := time.Now()
	for look := 1; len(refusals) > 0 && (look < probeLooks || allBusy(refusals) && time.Since(begin) < patience); look++ {
		time.Sleep(probePause)
		again := make(map[string]bool)
		procs, found := probe(src)
		procs.close()
		for _, err := range found {
			again[err.Error()] = true
		}
		refusals = slices.DeleteFunc(refusals, func(err error) bool { return !again[err.Error()] })
	}
	return refusals
}

// allBusy tells whether all that stands in the way is likely to pass.
func allBusy(refusals []error) bool {
	return !slices.ContainsFunc(refusals, func(err error) bool { return !errors.Is(err, object.ErrBusy) })
}

// probe looks once, and returns the processes that it looked at, which the caller closes.
func probe(src *Source) (crowd, []error) {
	procs, refusals, err := src.look()
	if err != nil {
		return nil, []error{err}
	}
	looks := []func(*Source, crowd) []error{probeInstance, probeProcesses, probeDescriptors}
	found := make([][]error, len(looks))
	var g sync.WaitGroup
	for i, look := range looks {
		g.Go(func() { found[i] = look(src, procs) })
	}
	g.Wait()
	return procs, append(refusals, slices.Concat(found...)...)
}

// probeInstance looks at what the processes have in common, and at how they belong together.
func probeInstance(src *Source, procs crowd) []error {
	mounts, err := mount.Read(src.Init, src.Standard)
	if err != nil {
		return []error{err}
	}
	defer mounts.Close()
	refusals := mounts.Probe()
	refusals = append(refusals, keyring.Probe(src.Kernel, procs)...)
	refusals = append(refusals, ipc.Probe(src.Init)...)
	refusals = append(refusals, network.Probe(src.Init)...)
	if err := probeTree(src, procs); err != nil {
		refusals = append(refusals, err)
	}
	return refusals
}

// probeProcesses looks at each process by itself.
func probeProcesses(src *Source, procs crowd) []error {
	namespaces, err := object.ReadNamespaces(src.Init)
	if err != nil {
		return []error{err}
	}
	var refusals []error
	add := func(err error) {
		if err != nil && !object.Vanished(err) {
			refusals = append(refusals, err)
		}
	}
	for _, p := range procs {
		add(namespaces.Probe(p))
		add(object.ProbeProcess(p))
		as, err := src.Flags.ReadRunning(p)
		add(err)
		if err == nil {
			for _, r := range as.Probe() {
				add(r)
			}
		}
	}
	return refusals
}

// probeDescriptors looks at the open files of all processes.
func probeDescriptors(src *Source, procs crowd) []error {
	var refusals []error
	d := src.descriptors(procs, nil)
	for _, p := range procs {
		tables, err := tables(p)
		if err != nil {
			refusals = append(refusals, err)
		}
		for _, table := range tables {
			refusals = append(refusals, d.Probe(table)...)
			if table.PidFD != p.PidFD {
				table.Close()
			}
		}
	}
	return slices.DeleteFunc(refusals, object.Vanished)
}

// descriptors prepares a dump of open files of every kind.
func (src *Source) descriptors(procs []object.Proc, sink object.Sink) *file.Descriptors {
	return kinds.NewDescriptors(procs, src.Init, src.Externals, sink, src.Kernel)
}

// nameOf says which process an error is about.
func nameOf(p object.Proc, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pid %d (%s): %w", p.PID, p.Comm, err)
}
