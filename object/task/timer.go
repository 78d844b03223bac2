package task

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/remote"
)

// maxSkippedTimers bounds how many timers are made and deleted again in order to come to the wanted ids, on kernels that
// cannot make a timer with a given id.
const maxSkippedTimers = 128

// AskItimers asks a process for its interval timers (getitimer(2)).
func AskItimers(b *remote.Batch) func(p *dump.Process) error {
	var read [3]func() unix.Itimerval
	for which := range read {
		var at remote.Address
		at, read[which] = object.Space[unix.Itimerval](b)
		b.Call("get interval timer", unix.SYS_GETITIMER, which, at)
	}
	return func(p *dump.Process) error {
		if err := b.Err(); err != nil {
			return err
		}
		p.Itimers = nil
		for _, r := range read {
			v := r()
			p.Itimers = append(p.Itimers, &dump.Itimer{Interval: v.Interval.Nano(), Value: v.Value.Nano()})
		}
		return nil
	}
}

// RestoreItimers arms the interval timers of a stub. They run from then on.
func RestoreItimers(b *remote.Batch, p *dump.Process) {
	for which, i := range p.GetItimers() {
		if i.GetValue() == 0 && i.GetInterval() == 0 {
			continue
		}
		// One that has an interval but no time left has expired, and goes on when its signal is taken.
		v := unix.Itimerval{Interval: unix.NsecToTimeval(i.GetInterval()), Value: unix.NsecToTimeval(max(i.GetValue(), 1000))}
		b.Call("arm interval timer", unix.SYS_SETITIMER, which, object.Place(b, &v), 0)
	}
}

// DumpTimers lists the POSIX timers of a process (proc_pid_timers(5)). tid translates the tid of one of its threads from
// here to inside. [AskTimers] adds how much of them is left.
func DumpTimers(pid int, tid func(here int) (int, error)) ([]*dump.PosixTimer, error) {
	text, err := object.ReadProc(pid, "timers")
	if err != nil {
		return nil, err
	}
	timers, err := parseTimers(string(text), tid)
	if err != nil {
		return nil, fmt.Errorf("/proc/%d/timers: %w", pid, err)
	}
	return timers, nil
}

func parseTimers(text string, tid func(here int) (int, error)) ([]*dump.PosixTimer, error) {
	var timers []*dump.PosixTimer
	t := &dump.PosixTimer{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		p := object.FieldParser{}
		switch key {
		case "ID":
			t = &dump.PosixTimer{Id: int32(p.Int(value))}
			timers = append(timers, t)
		case "signal":
			signal, sigval, _ := strings.Cut(value, "/")
			t.Signal, t.Sigval = int32(p.Int(signal)), p.Uint(sigval, 16)
		case "notify":
			how, target, _ := strings.Cut(value, "/")
			kind, id, _ := strings.Cut(target, ".")
			n := slices.Index([]string{"signal", "none", "thread"}, how)
			if n < 0 {
				return nil, fmt.Errorf("notify %q", value)
			}
			t.Notify = int32(n)
			if kind == "tid" {
				t.Notify |= linux.SIGEV_THREAD_ID
				inner, err := tid(p.Int(id))
				if err != nil {
					return nil, err
				}
				t.Tid = uint32(inner)
			}
		case "ClockID":
			t.Clock = int32(p.Int(value))
		}
		if p.Err != nil {
			return nil, fmt.Errorf("line %q: %w", line, p.Err)
		}
	}
	slices.SortFunc(timers, func(a, b *dump.PosixTimer) int { return int(a.GetId() - b.GetId()) })
	return timers, nil
}

// AskTimers asks a process, by any of its threads, how much is left of its timers.
func AskTimers(b *remote.Batch, timers []*dump.PosixTimer) func() error {
	read := make([]func() unix.ItimerSpec, len(timers))
	overrun := make([]remote.Result, len(timers))
	for i, t := range timers {
		var at remote.Address
		at, read[i] = object.Space[unix.ItimerSpec](b)
		b.Call("get timer", unix.SYS_TIMER_GETTIME, t.GetId(), at)
		overrun[i] = b.Call("get overrun of timer", unix.SYS_TIMER_GETOVERRUN, t.GetId())
	}
	return func() error {
		for i, t := range timers {
			n, err := b.Value(overrun[i])
			if err != nil {
				return err
			}
			v := read[i]()
			t.Interval, t.Value, t.Overrun = v.Interval.Nano(), v.Value.Nano(), int32(n)
		}
		return b.Err()
	}
}

// RestoreTimers makes the POSIX timers of a stub with their ids, and arms them. The threads that they signal have been
// born. A timer for a thread's own CPU time becomes one of the calling thread: the kernel does not tell whose it was.
func RestoreTimers(b *remote.Batch, timers []*dump.PosixTimer) error {
	if len(timers) == 0 {
		return nil
	}
	timers = slices.Clone(timers)
	slices.SortFunc(timers, func(a, b *dump.PosixTimer) int { return int(int64(a.GetId()) - int64(b.GetId())) })
	for i, t := range timers {
		if t.GetId() < 0 || i > 0 && timers[i-1].GetId() == t.GetId() {
			return fmt.Errorf("timer id %d is negative or there twice", t.GetId())
		}
	}
	exact := timersByID()
	if exact {
		b.Call("ask for timer ids", unix.SYS_PRCTL, unix.PR_TIMER_CREATE_RESTORE_IDS, unix.PR_TIMER_CREATE_RESTORE_IDS_ON, 0, 0, 0)
	} else if skipped := int(timers[len(timers)-1].GetId()) + 1 - len(timers); skipped > maxSkippedTimers {
		return fmt.Errorf("timer id %d needs PR_TIMER_CREATE_RESTORE_IDS of Linux 6.15: %w",
			timers[len(timers)-1].GetId(), errors.ErrUnsupported)
	}
	next := int32(0) // the id that a kernel without that gives
	for _, t := range timers {
		for ; !exact && next < t.GetId(); next++ {
			createTimer(b, &dump.PosixTimer{Id: next, Clock: unix.CLOCK_MONOTONIC, Notify: linux.SIGEV_NONE})
			b.Call("delete timer", unix.SYS_TIMER_DELETE, next)
		}
		next++
		createTimer(b, t)
		if t.GetValue() != 0 || t.GetInterval() != 0 {
			v := unix.ItimerSpec{Interval: unix.NsecToTimespec(t.GetInterval()), Value: unix.NsecToTimespec(t.GetValue())}
			b.Call("arm timer", unix.SYS_TIMER_SETTIME, t.GetId(), 0, object.Place(b, &v), 0)
		}
	}
	if exact {
		b.Call("ask for no more timer ids", unix.SYS_PRCTL, unix.PR_TIMER_CREATE_RESTORE_IDS, unix.PR_TIMER_CREATE_RESTORE_IDS_OFF, 0, 0, 0)
	}
	return nil
}

// createTimer adds a timer_create(2); the id in its memory is the wanted one where the kernel heeds it.
func createTimer(b *remote.Batch, t *dump.PosixTimer) {
	event := linux.Sigevent{Value: t.GetSigval(), Signal: t.GetSignal(), Notify: t.GetNotify(), TID: int32(t.GetTid())}
	id := t.GetId()
	b.Call("create timer "+strconv.Itoa(int(id)), unix.SYS_TIMER_CREATE, t.GetClock(), object.Place(b, &event), object.Place(b, &id))
}

// timersByID tells whether the kernel can make a timer with a given id.
func timersByID() bool {
	_, err := unix.PrctlRetInt(unix.PR_TIMER_CREATE_RESTORE_IDS, unix.PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0)
	return err == nil
}
