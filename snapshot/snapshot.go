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
	"time"

	"vps/dump"
	"vps/object"
	"vps/pager"
	"vps/suspend"
)

// Source is the instance of which a snapshot is taken.
type Source struct {
	Group suspend.Group
	Init  int // the pid of its init, here
	// Info is what only the manager knows; the rest of the record is filled in.
	Info      *dump.Instance
	Standard  []string // mount points that the manager makes at every start
	Externals object.Externals
	Restarts  *object.RestartReader // nil: the rest of an interrupted sleep is not known
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
	if err := errors.Join(Probe(src)...); err != nil {
		return Report{}, err
	}
	memory := pager.NewCopy(w)
	defer memory.Close()
	report := &Report{}
	if err := prepare(ctx, src, memory, report); err != nil {
		return *report, err
	}
	begin := time.Now()
	clock := clock{last: begin}
	err := suspend.Hold(ctx, src.Group, func() bool { return suspended }, func(in *suspend.Instance) error {
		clock.done("stop")
		t := &taker{ctx: ctx, src: src, w: w, memory: memory, in: in, clock: &clock}
		defer t.close()
		suspended = suspended || in.Suspended
		err := t.take()
		report.Processes, report.Threads = len(t.procs), t.threads
		return err
	})
	clock.done("let go")
	report.Frozen = time.Since(begin)
	if err == nil {
		err = memory.Finish(ctx)
	}
	if suspended {
		clock.done("write pages")
		report.Frozen = time.Since(begin)
	}
	report.Phases = clock.phases
	return *report, err
}

// prepare copies what can be copied before the instance is frozen.
func prepare(ctx context.Context, src *Source, memory *pager.Copy, report *Report) error {
	frozen, err := src.Group.Frozen()
	if err != nil || frozen {
		return err
	}
	if src.Copy != Frozen {
		switch err := canTrack(); {
		case err == nil:
			if err := copyRounds(ctx, src, memory, report); err != nil {
				return err
			}
		case src.Copy == Rounds:
			return fmt.Errorf("copy in rounds: %w", err)
		}
	}
	return reserve(src, memory)
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
	refusals := probe(src)
	for look := 1; look < probeLooks && len(refusals) > 0; look++ {
		time.Sleep(probePause)
		again := make(map[string]bool)
		for _, err := range probe(src) {
			again[err.Error()] = true
		}
		refusals = slices.DeleteFunc(refusals, func(err error) bool { return !again[err.Error()] })
	}
	return refusals
}

// probe looks once.
func probe(src *Source) []error {
	pids, err := src.Group.Procs()
	if err != nil {
		return []error{err}
	}
	var refusals []error
	mounts, err := object.ReadMounts(src.Init, src.Standard)
	if err != nil {
		return []error{err}
	}
	refusals = append(refusals, mounts.Probe()...)
	level, err := object.ReadLevel(src.Init)
	if err != nil {
		return []error{err}
	}
	var procs []object.Proc
	for _, pid := range pids {
		p, err := object.OpenProc(pid, level)
		if object.Vanished(err) {
			continue
		}
		if err != nil {
			refusals = append(refusals, err)
			continue
		}
		defer p.Close()
		procs = append(procs, p)
	}
	refusals = append(refusals, object.ProbeShared(procs)...)
	refusals = append(refusals, object.ProbeIPC(src.Init)...)
	refusals = append(refusals, object.ProbeNetwork(src.Init)...)
	d := object.NewDescriptors(procs, src.Init, src.Externals, nil)
	for _, p := range procs {
		refusals = append(refusals, probeProcess(p, src.Init, d)...)
	}
	if err := probeTree(src); err != nil {
		refusals = append(refusals, err)
	}
	return refusals
}

func probeProcess(p object.Proc, init int, d *object.Descriptors) []error {
	var refusals []error
	add := func(err error) {
		if err != nil && !object.Vanished(err) {
			refusals = append(refusals, err)
		}
	}
	add(object.ProbeNamespaces(p, init))
	add(object.ProbeProcess(p))
	as, err := object.ReadAddressSpace(p)
	add(err)
	if err == nil {
		for _, r := range as.Probe() {
			add(r)
		}
	}
	for _, r := range d.Probe(p) {
		add(r)
	}
	return refusals
}

// nameOf says which process an error is about.
func nameOf(p object.Proc, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pid %d (%s): %w", p.PID, p.Comm, err)
}
