package restore

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// takeOver has the threads born, lets each take what is its own, and then takes all of them out of their stubs.
func (r *restorer) takeOver(ctx context.Context) error {
	for _, p := range r.procs {
		if err := r.bearThreads(ctx, p); err != nil {
			return p.nameOf(r.set, err)
		}
	}
	return remote.Trace(func(t *remote.Tracer) error {
		if err := r.each(func(p *process, th *thread) (err error) {
			th.traced, err = t.Seize(th.host, true)
			return err
		}); err != nil {
			return err
		}
		if err := r.personalize(ctx); err != nil {
			return err
		}
		for _, p := range r.procs {
			if err := r.stop(p); err != nil {
				return p.nameOf(r.set, err)
			}
		}
		for _, p := range r.procs {
			if err := r.become(p); err != nil {
				return p.nameOf(r.set, err)
			}
		}
		// Once let go, each is caught by the freezer before it returns to its program.
		return r.Group.Freeze(ctx)
	})
}

// each calls f for every thread of every process.
func (r *restorer) each(f func(p *process, th *thread) error) error {
	for _, p := range r.procs {
		for _, th := range p.threads {
			if err := f(p, th); err != nil {
				return p.nameOf(r.set, err)
			}
		}
	}
	return nil
}

// bearThreads makes the process's further threads, and finds out their tids here.
func (r *restorer) bearThreads(ctx context.Context, p *process) error {
	leader := &thread{record: r.set.Threads[uint64(p.record.GetPid())], page: p.page, host: p.host}
	p.threads = []*thread{leader}
	s := p.page.Script(ctx, p.pidfd)
	for _, tid := range p.record.GetThreads()[1:] {
		th := &thread{record: r.set.Threads[uint64(tid)], page: r.slot()}
		th.page.Batch()
		p.threads = append(p.threads, th)
		b := s.Room(1024)
		b.Clone(fmt.Sprintf("clone thread %d", tid), remote.CloneArgs{
			Slot: th.page, SetTID: []int{int(tid)},
			Flags: unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM,
		})
	}
	if err := s.Run(); err != nil || len(p.threads) == 1 {
		return err
	}
	tasks, err := object.Tasks(p.host)
	if err != nil {
		return err
	}
	here := make(map[uint32]int)
	for _, task := range tasks {
		status, err := object.ReadStatus(task)
		if err != nil {
			return err
		}
		tid, _, _ := status.Inside()
		here[uint32(tid)] = task
	}
	for _, th := range p.threads {
		th.host = here[th.record.GetTid()]
	}
	return nil
}

// personalize lets every thread take what is its own: all at the same time, since each has its batch. Their filters are
// suspended, because they are traced.
func (r *restorer) personalize(ctx context.Context) error {
	type job struct {
		p  *process
		th *thread
		b  *remote.Batch
	}
	var jobs []job
	err := r.each(func(p *process, th *thread) error {
		b := th.page.Batch()
		jobs = append(jobs, job{p, th, b})
		if err := r.compose(b, p, th); err != nil {
			return err
		}
		return b.Start()
	})
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if timed(j.th.record) {
			continue // its last call is the one in which it was interrupted
		}
		if err := j.b.Wait(ctx, j.p.pidfd); err != nil {
			return j.p.nameOf(r.set, fmt.Errorf("thread %d: %w", j.th.record.GetTid(), err))
		}
	}
	return nil
}

// timed tells whether a thread was in a call with a time limit of which the rest is known.
func timed(t *dump.Thread) bool {
	return t.GetRestart().GetKind() != dump.Restart_NONE && t.GetRestart().GetKnown()
}

// compose writes a thread's batch; the leader's has what belongs to the whole process.
func (r *restorer) compose(b *remote.Batch, p *process, th *thread) error {
	leader := th == p.threads[0]
	chain, err := object.SeccompChain(th.record, r.set.Seccomps)
	if err != nil {
		return err
	}
	if leader {
		object.RestoreProcess(b, p.record)
		object.RestoreSigHand(b, r.set.SigHands[p.record.GetSigHand()])
		if err := object.RestoreTimers(b, p.record.GetTimers()); err != nil {
			return err
		}
		object.RestorePending(b, int(p.record.GetPid()), p.record.GetPending())
	}
	object.RestoreThreadPending(b, int(p.record.GetPid()), int(th.record.GetTid()), th.record.GetPending())
	object.RestoreThread(b, th.record)
	if leader {
		object.RestoreItimers(b, p.record)
		object.RestoreRlimits(b, p.record, r.limits)
	}
	object.RestoreSeccomp(b, th.record, append(r.managers(), chain...), false)
	object.RestoreCreds(b, th.record.GetCreds(), th.record.GetNoNewPrivs(), r.Bound)
	object.RestoreDeathSignal(b, th.record)
	if leader {
		dumpable := r.set.Mms[p.record.GetMm()].GetDumpable()
		if dumpable == 1 {
			b.Call("set dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
		}
	}
	if timed(th.record) {
		return object.RestoreRestart(b, th.record)
	}
	return nil
}

// managers is the manager's own filter as the first of every chain.
func (r *restorer) managers() []*dump.Seccomp {
	if r.Filter == nil {
		return nil
	}
	return []*dump.Seccomp{{Program: filterBytes(r.Filter)}}
}

// stop stops the threads of a process, one whose call has a time limit within that call.
func (r *restorer) stop(p *process) error {
	for _, th := range p.threads {
		for deadline := time.Now().Add(5 * time.Second); ; {
			if err := th.traced.Interrupt(); err != nil {
				return err
			}
			if err := th.traced.WaitStop(); err != nil {
				return err
			}
			if !timed(th.record) {
				break
			}
			regs, err := th.traced.Registers()
			if err != nil {
				return err
			}
			if _, block := regs.Restarts(); block {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("thread %d does not come to its interrupted call", th.record.GetTid())
			}
			if err := th.traced.Continue(); err != nil {
				return err
			}
		}
	}
	return nil
}

// become turns the stopped stubs of a process into its threads.
func (r *restorer) become(p *process) error {
	leader := p.threads[0]
	if _, err := leader.traced.Syscall(p.vdso, unix.SYS_MUNMAP, r.Arena.Base(), uint64(r.Arena.Size())); err != nil {
		return fmt.Errorf("unmap arena: %w", err)
	}
	for _, th := range p.threads {
		regs := remote.FromRecord(th.record.GetRegs())
		if restarts, block := regs.Restarts(); restarts && block && !timed(th.record) {
			regs.Rewind() // the whole time again, never less
		}
		if err := th.traced.SetXState(th.record.GetXstate()); err != nil {
			return err
		}
		var err error
		if th == leader {
			err = th.traced.Settle(regs)
		} else {
			err = th.traced.SetRegisters(regs)
		}
		if err != nil {
			return err
		}
		if err := th.traced.SetSigMask(th.record.GetSigmask()); err != nil {
			return err
		}
	}
	if p.record.GetState() == dump.Process_STOPPED {
		if err := unix.PidfdSendSignal(p.pidfd, unix.SIGSTOP, nil, 0); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
	}
	return nil
}
