package restore

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/memory"
	"vps/object/task"
	"vps/remote"
)

// takeOver lets each thread take what is its own, and then takes all of them out of their stubs.
func (r *restorer) takeOver(ctx context.Context) error {
	for _, p := range r.procs {
		if p.threads[0].record.GetEnded() {
			if err := r.endLeader(ctx, p); err != nil {
				return p.nameOf(r.set, err)
			}
		}
	}
	return remote.Trace(func(t *remote.Tracer) error {
		if err := r.each(func(p *process, th *thread) (err error) {
			if th.traced, err = t.Seize(th.host, true); err != nil {
				return err
			}
			return th.saveSequence()
		}); err != nil {
			return err
		}
		if err := r.shareFilters(ctx); err != nil {
			return err
		}
		if err := r.personalize(ctx); err != nil {
			return err
		}
		if err := r.stop(); err != nil {
			return err
		}
		if err := r.become(); err != nil {
			return err
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

// shareFilters puts all threads of each process under the filters that they have in common: the very same, so that the
// program can go on synchronizing them (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC).
//
// A thread alone has nothing to share: it takes few filters with the rest of what is its own.
func (r *restorer) shareFilters(ctx context.Context) error {
	begun := make(map[*process]*remote.Batch)
	for _, p := range r.procs {
		common := r.managers()
		for i, th := range p.threads {
			chain, err := task.SeccompChain(th.record, r.set.Seccomps)
			if err != nil {
				return p.nameOf(r.set, err)
			}
			th.filters = append(r.managers(), chain...)
			if i == 0 {
				common = th.filters
			}
			common = commonPrefix(common, th.filters)
		}
		if len(common) == 0 || len(p.threads) == 1 && len(common) <= ownFilters {
			continue // a thread alone takes all as its own
		}
		for _, th := range p.threads {
			th.filters = th.filters[len(common):]
		}
		b := p.page.Batch()
		task.RestoreSeccomp(b, &dump.Thread{}, common, true)
		if err := b.Start(); err != nil {
			return p.nameOf(r.set, err)
		}
		begun[p] = b
	}
	for p, b := range begun {
		if err := b.Wait(ctx, p.pidfd); err != nil {
			return p.nameOf(r.set, err)
		}
	}
	return nil
}

// ownFilters is how many filters a thread's batch has room for beside the rest.
const ownFilters = 2

func commonPrefix(a, b []*dump.Seccomp) []*dump.Seccomp {
	n := 0
	for n < len(a) && n < len(b) && a[n].GetId() == b[n].GetId() {
		n++
	}
	return a[:n]
}

// personalize lets every thread take what is its own: all at the same time, since each has its batch. Their filters are
// suspended, because they are traced.
func (r *restorer) personalize(ctx context.Context) error {
	if err := r.each(func(p *process, th *thread) error {
		th.batch = th.page.Batch()
		if err := r.compose(th.batch, p, th); err != nil {
			return err
		}
		return th.batch.Start()
	}); err != nil {
		return err
	}
	return r.each(func(p *process, th *thread) error {
		if th.waits {
			return nil // its last call is the one in which it was interrupted
		}
		if err := th.batch.Wait(ctx, p.pidfd); err != nil {
			return fmt.Errorf("thread %d: %w", th.record.GetTid(), err)
		}
		return nil
	})
}

// compose writes a thread's batch; the leader's has what belongs to the whole process.
func (r *restorer) compose(b *remote.Batch, p *process, th *thread) error {
	leader := th == p.threads[0]
	if th.record.GetTid() == p.record.GetPid() {
		if err := r.composeProcess(b, p); err != nil {
			return err
		}
	} else {
		task.RestorePersonality(b, p.record)
	}
	if fs := th.record.GetFs(); fs != nil {
		b.Call("set umask", unix.SYS_UMASK, fs.GetUmask())
	}
	task.RestoreThreadPending(b, int(p.record.GetPid()), int(th.record.GetTid()), th.record.GetPending())
	task.RestoreThread(b, th.record)
	if leader {
		task.RestoreItimers(b, p.record)
		task.RestoreRlimits(b, p.record, r.limits)
	}
	task.RestoreSeccomp(b, th.record, th.filters, false)
	task.RestoreCreds(b, th.record.GetCreds(), th.record.GetNoNewPrivs(), r.Bound)
	task.RestoreDeathSignal(b, th.record)
	if leader {
		dumpable := 0 // SUID_DUMP_ROOT cannot be set
		if r.set.Mms[p.record.GetMm()].GetDumpable() == 1 {
			dumpable = 1
		}
		b.Call("set dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, dumpable, 0, 0, 0)
	}
	if th.record.GetRestart() != nil {
		th.call, th.waits = task.RestoreRestart(b, th.record)
	}
	return nil
}

// composeProcess writes what belongs to a whole process and is its first thread's to do: of those who queue signals, the kernel
// believes only that one that they come from itself.
func (r *restorer) composeProcess(b *remote.Batch, p *process) error {
	task.RestoreProcess(b, p.record)
	memory.RestoreModes(b, r.set.Mms[p.record.GetMm()])
	task.RestoreSigHand(b, r.set.SigHands[p.record.GetSigHand()])
	if err := task.RestoreTimers(b, p.record.GetTimers()); err != nil {
		return err
	}
	task.RestorePending(b, int(p.record.GetPid()), p.record.GetPending())
	return nil
}

// managers is the manager's own filter as the first of every chain.
func (r *restorer) managers() []*dump.Seccomp {
	if r.Filter == nil {
		return nil
	}
	return []*dump.Seccomp{{Program: filterBytes(r.Filter)}}
}

// stop stops all threads: at the end of their batches, or in the interrupted calls that they make there.
func (r *restorer) stop() error {
	err := r.each(func(_ *process, th *thread) error {
		if th.waits {
			return nil
		}
		return th.traced.Interrupt()
	})
	if err != nil {
		return err
	}
	return r.each(func(_ *process, th *thread) error {
		if th.waits {
			return th.stopInCall()
		}
		return th.traced.WaitStop()
	})
}

// stopInCall stops a thread within its interrupted call, or at its end. It is left alone until it comes to that call: each stop before
// only holds it up.
func (th *thread) stopInCall() error {
	pause := 10 * time.Microsecond
	for deadline := time.Now().Add(5 * time.Second); ; pause = min(2*pause, time.Millisecond) {
		for !th.batch.Reached(th.call) && !th.page.Done() && time.Now().Before(deadline) {
			nap(pause)
		}
		if err := th.traced.Interrupt(); err != nil {
			return err
		}
		if err := th.traced.WaitStop(); err != nil {
			return err
		}
		if th.page.Done() {
			return nil
		}
		regs, err := th.traced.Registers()
		if err != nil {
			return err
		}
		if _, block := regs.Restarts(); block {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("thread %d does not come to its interrupted call", th.record.GetTid())
		}
		if err := th.traced.Continue(); err != nil {
			return err
		}
		nap(pause)
	}
}

// nap sleeps for less than the millisecond that the runtime's timers take when nothing else is to be done.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&t, nil)
}

// registers returns what the thread goes on with.
func (th *thread) registers() remote.Registers {
	regs := remote.FromRecord(th.record.GetRegs())
	_, block := regs.Restarts()
	switch {
	case th.waits && th.page.Done():
		result, _ := th.batch.Value(th.call) // an errno is a result too
		regs.Return(result)
	case block && !th.waits:
		regs.Repeat(task.RestartNumber(th.record))
	}
	return regs
}

// become turns the stopped stubs into the threads of their processes.
func (r *restorer) become() error {
	if err := r.each(func(_ *process, th *thread) error { return th.putSequence() }); err != nil {
		return err
	}
	var unmap []remote.Call
	for _, p := range r.procs {
		at, err := findSyscall(p.threads[0].host, r.set.Mms[p.record.GetMm()])
		if err != nil {
			return p.nameOf(r.set, err)
		}
		unmap = append(unmap, remote.Call{
			Thread: p.threads[0].traced, At: at, Nr: unix.SYS_MUNMAP, Args: []uint64{r.Arena.Base(), uint64(r.Arena.Size())},
		})
	}
	if err := remote.SyscallAll(unmap); err != nil {
		return fmt.Errorf("unmap arena: %w", err)
	}
	var leaders []remote.Settling
	err := r.each(func(p *process, th *thread) error {
		if err := th.traced.SetXState(th.record.GetXstate()); err != nil {
			return err
		}
		if th != p.threads[0] {
			return th.traced.SetRegisters(th.registers())
		}
		leaders = append(leaders, remote.Settling{Thread: th.traced, Registers: th.registers()})
		return nil
	})
	if err != nil {
		return err
	}
	if err := remote.SettleAll(leaders); err != nil {
		return err
	}
	return r.each(func(p *process, th *thread) error {
		if err := th.traced.SetSigMask(th.record.GetSigmask()); err != nil {
			return err
		}
		if th != p.threads[len(p.threads)-1] || p.record.GetState() != dump.Process_STOPPED {
			return nil
		}
		if err := unix.PidfdSendSignal(p.pidfd, r.stopSignal(p), nil, 0); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
		return nil
	})
}

// stopSignal is the signal that stops a process as it was stopped: the same one, if nothing keeps it from stopping now.
func (r *restorer) stopSignal(p *process) unix.Signal {
	signal := unix.Signal(p.record.GetStopSignal())
	switch signal {
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
	default:
		return unix.SIGSTOP
	}
	for _, action := range r.set.SigHands[p.record.GetSigHand()].GetActions() {
		if action.GetSignal() == uint32(signal) {
			return unix.SIGSTOP
		}
	}
	for _, th := range p.threads {
		if th.record.GetSigmask()&(1<<(signal-1)) != 0 {
			return unix.SIGSTOP
		}
	}
	return signal
}

// saveSequence notes in which restartable sequence the thread was: its registration clears that word.
func (th *thread) saveSequence() error {
	if at := th.record.GetRseq().GetAddress(); at != 0 {
		return remote.ReadMemory(th.host, at+sequenceOffset, th.sequence[:])
	}
	return nil
}

func (th *thread) putSequence() error {
	if th.sequence == [8]byte{} {
		return nil
	}
	return remote.WriteMemory(th.host, th.record.GetRseq().GetAddress()+sequenceOffset, th.sequence[:])
}

// sequenceOffset is that of rseq_cs in struct rseq (include/uapi/linux/rseq.h).
const sequenceOffset = 8
