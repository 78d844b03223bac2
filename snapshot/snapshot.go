// Package snapshot takes an instance apart: it has the order in which everything is found, asked and written.
//
//	probe      walk everything while the instance runs; refuse now, by name
//	hold       freeze, seize every task                            ─┐
//	ask        each process says what only it can tell              │ frozen
//	write      general info, mounts, processes, descriptors, pages  │
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
	"vps/object/file"
	"vps/object/ipc"
	"vps/object/kinds"
	"vps/object/memory"
	"vps/object/mount"
	"vps/object/network"
	"vps/object/task"
	"vps/remote"
	"vps/suspend"
)

// Source is the instance of which a snapshot is taken.
type Source struct {
	Group suspend.Group
	Init  int // the pid of its init, here
	// Info is what only the manager knows; the rest of the record is filled in.
	Info      *dump.Instance
	Standard  []string // mount points that the manager makes at every start
	Externals file.Externals
	Restarts  *task.RestartReader // nil: the rest of an interrupted sleep is not known
	// Filters is the number of seccomp filters that the manager has installed in every process.
	Filters int
}

// Report is what a snapshot cost.
type Report struct {
	Processes, Threads int
	Frozen             time.Duration // from the freeze until the instance was let go
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
	var report Report
	begin := time.Now()
	clock := clock{last: begin}
	err := suspend.Hold(ctx, src.Group, func() bool { return suspended }, func(in *suspend.Instance) error {
		clock.done("stop")
		t := &taker{ctx: ctx, src: src, w: w, in: in, clock: &clock}
		defer t.close()
		err := t.take()
		report.Processes, report.Threads = len(t.procs), t.threads
		return err
	})
	clock.done("let go")
	report.Frozen, report.Phases = time.Since(begin), clock.phases
	if err != nil {
		return report, err
	}
	return report, nil
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
	mounts, err := mount.Read(src.Init, src.Standard)
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
	refusals = append(refusals, ipc.Probe(src.Init)...)
	refusals = append(refusals, network.Probe(src.Init)...)
	d := kinds.NewDescriptors(procs, src.Init, src.Externals, nil)
	for _, p := range procs {
		refusals = append(refusals, probeProcess(p, src.Init, d)...)
	}
	if err := probeTree(src); err != nil {
		refusals = append(refusals, err)
	}
	return refusals
}

func probeProcess(p object.Proc, init int, d *file.Descriptors) []error {
	var refusals []error
	add := func(err error) {
		if err != nil && !object.Vanished(err) {
			refusals = append(refusals, err)
		}
	}
	add(object.ProbeNamespaces(p, init))
	add(object.ProbeProcess(p))
	as, err := memory.ReadAddressSpace(p)
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

// Estimate tells how large a snapshot taken now would be, and for about how long the instance would be frozen.
func Estimate(src *Source) (bytes int64, frozen time.Duration, err error) {
	pids, err := src.Group.Procs()
	if err != nil {
		return 0, 0, err
	}
	level, err := object.ReadLevel(src.Init)
	if err != nil {
		return 0, 0, err
	}
	const perProcess, perThread = 32 << 10, 4 << 10
	for _, pid := range pids {
		p, err := object.OpenProc(pid, level)
		if err != nil {
			continue // it has ended, or a probe names it
		}
		defer p.Close()
		as, err := memory.ReadAddressSpace(p)
		if err != nil {
			continue
		}
		ranges, err := as.Ranges()
		if err != nil {
			return 0, 0, err
		}
		for _, r := range ranges {
			bytes += int64(r.Len())
		}
		tasks, err := remote.Tasks(pid)
		if err != nil {
			continue
		}
		bytes += perProcess + int64(len(tasks))*perThread
		frozen += time.Millisecond + time.Duration(len(tasks))*100*time.Microsecond
	}
	const bytesPerSecond = 0.6e9
	return bytes, frozen + time.Duration(float64(bytes)/bytesPerSecond*1e9), nil
}
