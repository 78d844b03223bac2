package task

import (
	"bytes"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/remote"
)

const (
	schedDeadline    = 6          // SCHED_DEADLINE
	schedResetOnFork = 0x40000000 // SCHED_RESET_ON_FORK, in the policy of sched_setscheduler(2)
	maxCPUs          = 8192
)

// DumpThread returns the record of a thread as far as it can be read from outside: without registers, queues and
// filters, which are the tracer's, nor what [AskThread] asks for.
func DumpThread(s *object.Status, m object.IDMaps) (*dump.Thread, error) {
	tid, _, _ := s.Inside()
	creds, err := DumpCreds(s, m)
	if err != nil {
		return nil, err
	}
	t := &dump.Thread{
		Tid: uint32(tid), Comm: s.Name, Creds: creds, NoNewPrivs: s.NoNewPrivs, SeccompMode: uint32(s.Seccomp),
	}
	if s.ThreadFeatures != "" {
		return nil, &object.Refusal{PID: tid, Comm: s.Name, FD: -1, Object: "a shadow stack"}
	}
	if t.Sched, err = dumpSched(s.PID); err != nil {
		return nil, fmt.Errorf("pid %d (%s): %w", tid, s.Name, err)
	}
	if t.IoPriority, err = dumpIOPriority(s.PID); err != nil {
		return nil, fmt.Errorf("pid %d (%s): %w", tid, s.Name, err)
	}
	if t.Sched.GetPolicy()&^schedResetOnFork == schedDeadline {
		return nil, &object.Refusal{PID: tid, Comm: s.Name, FD: -1, Object: "deadline scheduling (SCHED_DEADLINE)"}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, uintptr(s.PID),
		uintptr(unsafe.Pointer(&t.RobustList)), uintptr(unsafe.Pointer(&t.RobustListLen)))
	if errno != 0 {
		return nil, fmt.Errorf("pid %d (%s): get robust list: %w", tid, s.Name, errno)
	}
	return t, nil
}

// DumpEnded returns the record of the first thread of a process, which has ended while others go on.
func DumpEnded(s *object.Status, m object.IDMaps) (*dump.Thread, error) {
	tid, _, _ := s.Inside()
	creds, err := DumpCreds(s, m)
	if err != nil {
		return nil, err
	}
	stat, err := object.ReadStat(s.PID)
	if err != nil {
		return nil, err
	}
	return &dump.Thread{
		Tid: uint32(tid), Pid: uint32(tid), Comm: s.Name, Creds: creds, Ended: true, WaitStatus: stat.ExitCode,
	}, nil
}

// AskThread asks a thread for what only it can tell of itself.
func AskThread(b *remote.Batch) func(t *dump.Thread) error {
	stackAt, stack := object.Space[linux.Stack](b)
	b.Call("get alternate stack", unix.SYS_SIGALTSTACK, 0, stackAt)
	tidAt, tidAddress := object.Space[uint64](b)
	b.Call("get tid address", unix.SYS_PRCTL, unix.PR_GET_TID_ADDRESS, tidAt, 0, 0, 0)
	deathAt, death := object.Space[int32](b)
	b.Call("get death signal", unix.SYS_PRCTL, unix.PR_GET_PDEATHSIG, deathAt, 0, 0, 0)
	slack := b.Call("get timer slack", unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	creds, modes := AskCreds(b), askModes(b)
	return func(t *dump.Thread) error {
		if err := b.Err(); err != nil {
			return err
		}
		v, err := b.Value(slack)
		if err != nil {
			return err
		}
		s := stack()
		t.Altstack = &dump.AltStack{Sp: s.SP, Size: s.Size, Flags: s.Flags}
		t.TidAddress, t.PdeathSignal, t.TimerSlack = tidAddress(), uint32(death()), uint64(v)
		if t.Creds == nil {
			t.Creds = &dump.Creds{}
		}
		modes(t)
		return creds(t.Creds)
	}
}

// RestoreThread gives a stub's thread what [DumpThread] and [AskThread] found, but for its credentials, which
// come after it ([RestoreCreds]), and what follows those ([RestoreDeathSignal], [RestoreSeccomp]). The process's memory is
// in place: the kernel writes to the area of the restartable sequences. The scheduling is bounded by the stub's own rights.
func RestoreThread(b *remote.Batch, t *dump.Thread) {
	b.Call("set name", unix.SYS_PRCTL, unix.PR_SET_NAME, b.String(t.GetComm()), 0, 0, 0)
	if a := t.GetAltstack(); a != nil {
		stack := object.Place(b, &linux.Stack{SP: a.GetSp(), Size: a.GetSize(), Flags: a.GetFlags()})
		b.Call("set alternate stack", unix.SYS_SIGALTSTACK, stack, 0)
	}
	b.Call("set tid address", unix.SYS_SET_TID_ADDRESS, t.GetTidAddress())
	if t.GetRobustListLen() != 0 {
		b.Call("set robust list", unix.SYS_SET_ROBUST_LIST, t.GetRobustList(), t.GetRobustListLen())
	}
	if r := t.GetRseq(); r.GetAddress() != 0 {
		b.Call("register restartable sequences", unix.SYS_RSEQ, r.GetAddress(), r.GetSize(), 0, r.GetSignature())
	}
	restoreSched(b, t.GetSched())
	restoreIOPriority(b, t)
	restoreModes(b, t)
	if t.GetTimerSlack() != 0 { // 0: that of a real-time task, which has none
		b.Call("set timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, t.GetTimerSlack(), 0, 0, 0)
	}
}

// RestoreEnded gives the first thread of a stub, which is about to end, what still shows of it; its credentials follow.
func RestoreEnded(b *remote.Batch, t *dump.Thread) {
	b.Call("set name", unix.SYS_PRCTL, unix.PR_SET_NAME, b.String(t.GetComm()), 0, 0, 0)
}

// RestoreDeathSignal sets the signal that the thread gets when its parent dies. It comes after the credentials, whose
// change clears it.
func RestoreDeathSignal(b *remote.Batch, t *dump.Thread) {
	if t.GetPdeathSignal() != 0 {
		b.Call("set death signal", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, t.GetPdeathSignal(), 0, 0, 0)
	}
}

func dumpSched(tid int) (*dump.Sched, error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return nil, fmt.Errorf("get scheduling: %w", err)
	}
	s := &dump.Sched{Policy: attr.Policy, Nice: attr.Nice, Priority: attr.Priority}
	if attr.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0 {
		s.Policy |= schedResetOnFork
	}
	cpus, err := affinity(tid)
	if err != nil {
		return nil, err
	}
	ours, err := affinity(0)
	if err != nil {
		return nil, err
	}
	// All processors of this host is no choice of the thread's; another host may have more.
	if !bytes.Equal(cpus, ours) {
		s.Affinity = cpus
	}
	return s, nil
}

// affinity returns a thread's set of processors, bit n%8 of byte n/8 for processor n.
func affinity(tid int) ([]byte, error) {
	set := make([]byte, maxCPUs/8)
	n, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETAFFINITY, uintptr(tid), uintptr(len(set)), uintptr(unsafe.Pointer(&set[0])))
	if errno != 0 {
		return nil, fmt.Errorf("get affinity: %w", errno)
	}
	return bytes.TrimRight(set[:n], "\x00"), nil
}

func restoreSched(b *remote.Batch, s *dump.Sched) {
	if s == nil {
		return
	}
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: s.GetPolicy() &^ schedResetOnFork, Nice: s.GetNice(), Priority: s.GetPriority(),
	}
	if s.GetPolicy()&schedResetOnFork != 0 {
		attr.Flags = unix.SCHED_FLAG_RESET_ON_FORK
	}
	if attr.Policy != unix.SCHED_NORMAL || attr.Nice != 0 || attr.Flags != 0 {
		b.Call("set scheduling", unix.SYS_SCHED_SETATTR, 0, object.Place(b, &attr), 0)
	}
	if len(s.GetAffinity()) > 0 {
		// It may name no processor of this host; then it keeps them all.
		set := slices.Concat(s.GetAffinity(), make([]byte, 8-len(s.GetAffinity())%8)) // whole words
		b.Try("set affinity", unix.SYS_SCHED_SETAFFINITY, 0, len(set), b.Data(set))
	}
}
