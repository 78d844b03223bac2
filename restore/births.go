package restore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/birth"
	"vps/remote"
)

// bear makes the process tree by its plan. In the first stage the processes come to be, each with its first batch
// written before it is born, so that the whole tree is one cascade.
func (r *restorer) bear(ctx context.Context) error {
	pages := map[int]*remote.Page{1: r.Page}
	for pid := range r.set.Processes {
		if pid != 1 {
			pages[int(pid)] = r.slot()
		}
	}
	for _, pid := range r.plan.Helpers {
		pages[pid] = r.slot()
	}
	for _, page := range pages {
		if page != r.Page {
			page.Batch() // it waits for its first batch, if it has none
		}
	}
	if err := r.bearOutside(ctx, pages); err != nil {
		return err
	}
	for i, stage := range r.plan.Stages {
		var waves [][]int
		if i == 0 {
			waves = r.heritage.waves
		}
		if err := r.stage(ctx, stage, pages, waves); err != nil {
			return err
		}
	}
	if err := r.setLastPID(ctx); err != nil {
		return err
	}
	return r.meet(pages)
}

// setLastPID lets the kernel go on counting pids where it was (proc_sys_kernel(5), ns_last_pid), or, where that is not known,
// above all that are in use: a number that a file or a parent still remembers is not given again at once.
func (r *restorer) setLastPID(ctx context.Context) error {
	last := uint64(r.set.Instance.GetLastPid())
	if last == 0 {
		for pid := range r.set.Processes {
			last = max(last, pid)
		}
		for tid := range r.set.Threads {
			last = max(last, tid)
		}
	}
	const path = "/proc/sys/kernel/ns_last_pid"
	fd, err := r.files.OpenPath(ctx, &dump.FileRef{Path: path, Mode: unix.S_IFREG}, unix.O_WRONLY)
	if err != nil {
		return err
	}
	s := r.Page.Script(ctx, r.PidFD)
	b := s.Room(1024)
	text := strconv.FormatUint(last, 10)
	b.Call("write "+path, unix.SYS_WRITE, fd, b.Data([]byte(text)), len(text))
	return s.Run()
}

// stage lets all processes of a stage take their steps, and waits for those who survive it. Those in waves are given pages
// first, which their children inherit.
func (r *restorer) stage(ctx context.Context, stage birth.Stage, pages map[int]*remote.Page, waves [][]int) error {
	later := make(map[int]bool)
	for _, pid := range slices.Concat(waves...) {
		later[pid] = true
	}
	// One that failed may keep others waiting for ever, so the first error ends the waiting for all.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		// The children of 0 have been born already. Children first: their batches must be there when they are born.
		for _, pid := range slices.Backward(slices.Sorted(maps.Keys(stage))) {
			if pid != 0 && !later[pid] {
				if err := r.steps(ctx, g, pid, stage[pid], pages); err != nil {
					return err
				}
			}
		}
		for _, wave := range waves {
			if err := r.endow(ctx, wave, pages); err != nil {
				return err
			}
			for _, pid := range wave {
				if err := r.steps(ctx, g, pid, stage[pid], pages); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return g.Wait()
}

// steps lets a process take its steps, and has g wait for their end.
func (r *restorer) steps(ctx context.Context, g *errgroup.Group, pid int, steps []birth.Step, pages map[int]*remote.Page) error {
	b := pages[pid].Batch()
	record := r.set.Processes[uint64(pid)]
	for _, step := range steps {
		step.Add(b, record, func(child int) *remote.Page { return pages[child] })
		if step.Op == birth.Setsid {
			if err := r.takeTerminal(b, record); err != nil {
				return err
			}
		}
	}
	if err := b.Start(); err != nil {
		return fmt.Errorf("pid %d: %w", pid, err)
	}
	if ends(steps) {
		return nil
	}
	g.Go(func() error {
		if err := b.Wait(ctx, r.PidFD); err != nil {
			return fmt.Errorf("pid %d: %w", pid, err)
		}
		return nil
	})
	return nil
}

// ends tells whether the process does not survive its steps.
func ends(steps []birth.Step) bool {
	last := steps[len(steps)-1].Op
	return last == birth.Exit || last == birth.Die
}

// meet finds out the pids of the newborn processes here.
func (r *restorer) meet(pages map[int]*remote.Page) error {
	hosts, err := r.Group.Procs()
	if err != nil {
		return err
	}
	for _, host := range hosts {
		pid, err := object.ReadInside(host)
		if object.Vanished(err) {
			continue
		}
		if err != nil {
			return err
		}
		record := r.set.Processes[uint64(pid)]
		if record == nil || record.GetState() == dump.Process_ZOMBIE {
			continue
		}
		p := &process{record: record, page: pages[pid], host: host, pidfd: r.PidFD}
		if pid != 1 {
			if p.pidfd, err = unix.PidfdOpen(host, 0); err != nil {
				return fmt.Errorf("open process %d: %w", host, err)
			}
		}
		r.procs[uint32(pid)] = p
	}
	for pid, record := range r.set.Processes {
		if record.GetState() != dump.Process_ZOMBIE && r.procs[uint32(pid)] == nil {
			return fmt.Errorf("pid %d: is gone after its birth", pid)
		}
	}
	return nil
}

// takeTerminal lets a session leader take its controlling terminal, before the session has further members: they inherit it.
func (r *restorer) takeTerminal(b *remote.Batch, p *dump.Process) error {
	if p.GetTty() == 0 {
		return nil
	}
	return r.files.TTYs.SetTTY(b, p.GetTty())
}
