package task

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/linux"
	"vps/remote"
)

func TestTimers(t *testing.T) {
	s := objecttest.Spawn(t, objecttest.UserRange)
	s.Run(0, BlockSignals)
	tid := s.Thread()
	want := []*dump.PosixTimer{
		{Id: 0, Clock: unix.CLOCK_MONOTONIC, Signal: 14, Sigval: 0x1122334455667788, Interval: 1e9, Value: 5e12},
		{Id: 3, Clock: unix.CLOCK_REALTIME, Notify: linux.SIGEV_NONE, Value: 4e12 + 5},
		{Id: 4, Clock: unix.CLOCK_BOOTTIME, Notify: linux.SIGEV_THREAD_ID, Signal: 34, Tid: uint32(tid), Sigval: 9, Value: 3e12},
		{Id: 7, Clock: -6, Signal: 50}, // CPU time of the process; disarmed
		{Id: 70, Clock: unix.CLOCK_MONOTONIC, Signal: 10, Value: 6e12},
	}
	s.Run(0, func(b *remote.Batch) {
		if err := RestoreTimers(b, want); err != nil {
			t.Fatal(err)
		}
	})
	got, err := DumpTimers(s.PID, func(here int) (int, error) { return here, nil })
	if err != nil {
		t.Fatal(err)
	}
	objecttest.Ask(s, 0, func(b *remote.Batch) func([]*dump.PosixTimer) error {
		read := AskTimers(b, got)
		return func([]*dump.PosixTimer) error { return read() }
	}, got)
	if len(got) != len(want) {
		t.Fatalf("%d timers", len(got))
	}
	for i, g := range got {
		objecttest.Near(t, "timer", want[i].GetValue(), g.GetValue(), time.Second)
		g.Value = want[i].GetValue()
		objecttest.Same(t, want[i], g)
	}
}

func TestTimerFires(t *testing.T) {
	s := objecttest.Spawn(t, nil)
	s.Run(0, BlockSignals)
	s.Run(0, func(b *remote.Batch) {
		if err := RestoreTimers(b, []*dump.PosixTimer{{Id: 2, Clock: unix.CLOCK_MONOTONIC, Signal: 40, Value: 1}}); err != nil {
			t.Fatal(err)
		}
		b.Call("wait for the signal", unix.SYS_RT_SIGTIMEDWAIT, b.Words(1<<39), 0, 0, linux.SigsetSize)
	})
}

func TestForgedTimers(t *testing.T) {
	s := objecttest.Spawn(t, nil)
	good := &dump.PosixTimer{Id: 1, Clock: unix.CLOCK_MONOTONIC, Signal: 14}
	for _, c := range []struct {
		name  string
		forge func(*dump.PosixTimer)
		errno error
	}{
		{"clock", func(p *dump.PosixTimer) { p.Clock = 99 }, unix.EINVAL},
		{"signal", func(p *dump.PosixTimer) { p.Signal = 1000 }, unix.EINVAL},
		{"thread of somebody else", func(p *dump.PosixTimer) { p.Notify, p.Tid = linux.SIGEV_THREAD_ID, 1 }, unix.EINVAL},
		{"value", func(p *dump.PosixTimer) { p.Value = -1 }, unix.EINVAL},
		{"id", func(p *dump.PosixTimer) { p.Id = -1 }, nil},
	} {
		timer := proto.Clone(good).(*dump.PosixTimer)
		c.forge(timer)
		var mistake error
		err := s.Try(0, func(b *remote.Batch) { mistake = RestoreTimers(b, []*dump.PosixTimer{timer}) })
		if c.errno == nil && mistake == nil || c.errno != nil && !errors.Is(err, c.errno) {
			t.Errorf("%s: %v, %v", c.name, mistake, err)
		}
		s.Run(0, func(b *remote.Batch) { b.Try("delete", unix.SYS_TIMER_DELETE, 1) })
	}
	if RestoreTimers(s.Arena.Page(0).Batch(), []*dump.PosixTimer{good, good}) == nil {
		t.Error("the same id twice was accepted")
	}
}
