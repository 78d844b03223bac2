package restore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
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
	return r.meet(pages)
}

// stage lets all processes of a stage take their steps, and waits for those who survive it.
func (r *restorer) stage(ctx context.Context, stage object.Stage, pages map[int]*remote.Page) error {
	batches := make(map[int]*remote.Batch)
	// Process 1, the only child of 0, has been born already.
	order := slices.DeleteFunc(slices.Sorted(maps.Keys(stage)), func(pid int) bool { return pid == 0 })
	for _, pid := range order {
		b := pages[pid].Batch()
		for _, step := range stage[pid] {
			if err := r.step(b, pid, step, pages); err != nil {
				return err
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
func (r *restorer) finish(ctx context.Context, stage object.Stage, batches map[int]*remote.Batch) error {
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
func ends(steps []object.Step) bool {
	last := steps[len(steps)-1].Op
	return last == object.Exit || last == object.Die
}

// step adds what one step of the plan takes.
func (r *restorer) step(b *remote.Batch, pid int, s object.Step, pages map[int]*remote.Page) error {
	switch s.Op {
	case object.Birth, object.BirthSibling:
		page := pages[s.PID]
		if page == nil || pid == 0 {
			return fmt.Errorf("pid %d: cannot be born of process %d", s.PID, pid)
		}
		args := remote.CloneArgs{Slot: page, SetTID: []int{s.PID}, ExitSignal: unix.SIGCHLD}
		if s.Op == object.BirthSibling {
			args.Flags, args.ExitSignal = unix.CLONE_PARENT, 0
		}
		b.Clone(fmt.Sprintf("clone process %d", s.PID), args)
	case object.Setsid:
		b.Call("setsid", unix.SYS_SETSID)
	case object.LeadGroup:
		b.Call("lead a process group", unix.SYS_SETPGID, 0, 0)
	case object.JoinGroup:
		b.Call(fmt.Sprintf("join process group %d", s.PID), unix.SYS_SETPGID, 0, s.PID)
	case object.StartReaping:
		b.Call("become a subreaper", unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	case object.StopReaping:
		b.Call("be no subreaper", unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	case object.Exit:
		b.Call("exit", unix.SYS_EXIT_GROUP, 0)
	case object.Reap:
		b.Call(fmt.Sprintf("wait for helper %d", s.PID), unix.SYS_WAIT4, s.PID, 0, unix.WALL, 0)
	case object.Await:
		b.Call(fmt.Sprintf("wait for zombie %d", s.PID), unix.SYS_WAITID, unix.P_PID, s.PID, 0, unix.WEXITED|unix.WNOWAIT|unix.WALL, 0)
	case object.Die:
		die(b, pid, r.set.Processes[uint64(pid)])
	default:
		return fmt.Errorf("pid %d: unknown step %d", pid, s.Op)
	}
	return nil
}

// die ends a process as a zombie ended.
func die(b *remote.Batch, pid int, p *dump.Process) {
	status := unix.WaitStatus(p.GetWaitStatus())
	if !status.Signaled() {
		b.Call("exit", unix.SYS_EXIT_GROUP, status.ExitStatus())
		return
	}
	b.Call("no core dump", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, b.Words(0, 0), 0)
	b.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, b.Words(0), 0, 8)
	b.Call("end by a signal", unix.SYS_KILL, pid, status.Signal())
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
