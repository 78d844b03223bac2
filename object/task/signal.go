package task

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/remote"
)

// AskSigHand asks a process for its signal actions; the record's id is the caller's.
func AskSigHand(b *remote.Batch) func(h *dump.SigHand) error {
	type action struct {
		signal int
		read   func() linux.Sigaction
	}
	var actions []action
	for n := 1; n <= linux.NSIG; n++ {
		if unblockable(n) {
			continue
		}
		at, read := object.Space[linux.Sigaction](b)
		b.Call("get signal action", unix.SYS_RT_SIGACTION, n, 0, at, linux.SigsetSize)
		actions = append(actions, action{n, read})
	}
	return func(h *dump.SigHand) error {
		if err := b.Err(); err != nil {
			return err
		}
		for _, a := range actions {
			if s := a.read(); s != (linux.Sigaction{}) {
				h.Actions = append(h.Actions, &dump.SigAction{
					Signal: uint32(a.signal), Handler: s.Handler, Flags: s.Flags, Restorer: s.Restorer, Mask: s.Mask,
				})
			}
		}
		return nil
	}
}

// RestoreSigHand sets all signal actions of a stub, whose threads block all signals (see [BlockSignals]). It drops
// the SIGCHLD that its own helpers left, and so comes before the pending signals and after the last death.
func RestoreSigHand(b *remote.Batch, h *dump.SigHand) {
	actions := make(map[int]*dump.SigAction)
	for _, a := range h.GetActions() {
		actions[int(a.GetSignal())] = a
	}
	for n := 1; n <= linux.NSIG; n++ {
		a := actions[n]
		// A stub has no other actions than SIG_DFL; SIGCHLD set to it is thrown away if pending.
		if unblockable(n) || a == nil && n != int(unix.SIGCHLD) {
			continue
		}
		if n == int(unix.SIGCHLD) && a != nil {
			b.Call("drop SIGCHLD", unix.SYS_RT_SIGACTION, n, object.Place(b, &linux.Sigaction{}), 0, linux.SigsetSize)
		}
		action := linux.Sigaction{Handler: a.GetHandler(), Flags: a.GetFlags(), Restorer: a.GetRestorer(), Mask: a.GetMask()}
		b.Call("set action of "+signalName(n), unix.SYS_RT_SIGACTION, n, object.Place(b, &action), 0, linux.SigsetSize)
	}
}

// BlockSignals blocks all signals in a stub's thread: a handler of the restored program must not run on it.
func BlockSignals(b *remote.Batch) { SetSigmask(b, ^uint64(0)) }

// SetSigmask sets the signal mask of the calling thread.
func SetSigmask(b *remote.Batch, mask uint64) {
	b.Call("set signal mask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, b.Words(mask), 0, linux.SigsetSize)
}

// SplitStop takes SIGSTOP out of a queue of pending signals: nobody can block it, so that it cannot be queued again in a
// stub. A process with one is about to stop.
func SplitStop(queue [][]byte) (rest [][]byte, stop bool) {
	rest = slices.DeleteFunc(slices.Clone(queue), func(info []byte) bool {
		return len(info) >= 4 && siginfoSignal(info) == int(unix.SIGSTOP)
	})
	return rest, len(rest) < len(queue)
}

// CheckPending checks a queue of pending signals of a record.
func CheckPending(queue [][]byte) error {
	for _, info := range queue {
		if len(info) != linux.SiginfoSize {
			return fmt.Errorf("pending signal of %d bytes, not %d", len(info), linux.SiginfoSize)
		}
		if n := siginfoSignal(info); n < 1 || n > linux.NSIG || unblockable(n) {
			return fmt.Errorf("signal %d cannot be pending", n)
		}
	}
	return nil
}

// RestorePending queues signals, in their order, in a process: the calling thread is its leader, pid its own pid.
// All of its threads block them, its actions are set, and the queue has passed [CheckPending].
func RestorePending(b *remote.Batch, pid int, queue [][]byte) {
	for _, info := range queue {
		n := siginfoSignal(info)
		b.Call("queue "+signalName(n), unix.SYS_RT_SIGQUEUEINFO, pid, n, b.Data(info))
	}
}

// RestoreThreadPending queues signals in the calling thread, tid of process pid; else as [RestorePending]. The kernel lets
// only a thread itself make what looks like a signal of the kernel's (kernel/signal.c, do_rt_tgsigqueueinfo).
func RestoreThreadPending(b *remote.Batch, pid, tid int, queue [][]byte) {
	for _, info := range queue {
		n := siginfoSignal(info)
		b.Call("queue "+signalName(n)+" for a thread", unix.SYS_RT_TGSIGQUEUEINFO, pid, tid, n, b.Data(info))
	}
}

// siginfoSignal is si_signo, the first field of siginfo_t.
func siginfoSignal(info []byte) int { return int(int32(binary.LittleEndian.Uint32(info))) }

func unblockable(n int) bool { return n == int(unix.SIGKILL) || n == int(unix.SIGSTOP) }

func signalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", n)
}
