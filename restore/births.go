package restore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

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
	for _, stage := range r.plan.Stages {
		if err := r.stage(ctx, stage, pages); err != nil {
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

// stage lets all processes of a stage take their steps, and waits for those who survive it.
func (r *restorer) stage(ctx context.Context, stage birth.Stage, pages map[int]*remote.Page) error {
	batches := make(map[int]*remote.Batch)
	// Process 1, the only child of 0, has been born already.
	order := slices.DeleteFunc(slices.Sorted(maps.Keys(stage)), func(pid int) bool { return pid == 0 })
	for _, pid := range order {
		b := pages[pid].Batch()
		record := r.set.Processes[uint64(pid)]
		for _, step := range stage[pid] {
			step.Add(b, record, func(child int) *remote.Page { return pages[child] })
			if step.Op == birth.Setsid {
				if err := r.takeTerminal(b, record); err != nil {
					return err
				}
			}
		}
		batches[pid] = b
	}
	// Children first: their batches must be there when they are born.
	for _, pid := range order {
		if pid != 1 {
			if err := batches[pid].Start(); err != nil {
				return fmt.Errorf("pid %d: %w", pid, err)
			}
		}
	}
	if b := batches[1]; b != nil {
		if err := b.Start(); err != nil {
			return fmt.Errorf("pid 1: %w", err)
		}
	}
	return r.finish(ctx, stage, batches)
}

// finish waits for the batches of a stage. One that failed may keep others waiting for ever, so all are looked at in turn.
func (r *restorer) finish(ctx context.Context, stage birth.Stage, batches map[int]*remote.Batch) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make(chan error, len(batches))
	waiting := 0
	for pid, b := range batches {
		if ends(stage[pid]) {
			continue
		}
		waiting++
		go func() {
			err := b.Wait(ctx, r.PidFD)
			if err != nil {
				err = fmt.Errorf("pid %d: %w", pid, err)
			}
			results <- err
		}()
	}
	var first error
	for range waiting {
		if err := <-results; err != nil && first == nil {
			first = err
			cancel(err)
		}
	}
	return first
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
		status, err := object.ReadStatus(host)
		if object.Vanished(err) {
			continue
		}
		if err != nil {
			return err
		}
		pid, _, _ := status.Inside()
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
