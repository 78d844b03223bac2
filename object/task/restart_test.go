package task

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/object"
	"vps/remote"
)

func monotonic() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// eventually waits for a condition on a thread's file in /proc.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s in 10 s", what)
		}
	}
}

// inCall tells whether a thread is in one of the system calls.
func inCall(tid int, numbers ...string) bool {
	text, _ := object.ReadProc(tid, "syscall")
	for _, n := range numbers {
		if strings.HasPrefix(string(text), n+" ") {
			return true
		}
	}
	return false
}

// interrupted stops a thread and returns its registers.
func interrupted(t testing.TB, tid int, f func(regs *dump.Registers)) {
	t.Helper()
	objecttest.Traced(t, tid, 0, func() {
		var r unix.PtraceRegs
		if err := unix.PtraceGetRegs(tid, &r); err != nil {
			t.Fatal(err)
		}
		f(&dump.Registers{Rax: r.Rax, OrigRax: r.Orig_rax, Rdi: r.Rdi, Rsi: r.Rsi, Rdx: r.Rdx, R10: r.R10})
	})
}

const (
	restartBlockErr = ^uint64(516) + 1
	scratch         = 0x7000000 // memory of the stubs
	total           = 100 * time.Second
)

func mapScratch(b *remote.Batch) {
	b.Call("map", unix.SYS_MMAP, scratch, 0x1000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0)
}

// A call that a signal stopped in the middle is dumped with what is left of it, and restored into another process.
func TestRestart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	reader, err := OpenRestartReader()
	if err != nil {
		t.Skip("no BPF: ", err)
	}
	defer reader.Close()
	limit := unix.NsecToTimespec(int64(total))
	for _, c := range []struct {
		name   string
		number string
		call   func(b *remote.Batch)
		want   *dump.Restart
	}{
		{"nanosleep", "35", func(b *remote.Batch) {
			b.Call("sleep", unix.SYS_NANOSLEEP, object.Place(b, &limit), scratch+64)
		}, &dump.Restart{Kind: dump.Restart_NANOSLEEP, Clock: unix.CLOCK_MONOTONIC, Rmtp: scratch + 64}},
		{"clock_nanosleep", "230", func(b *remote.Batch) {
			b.Call("sleep", unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_REALTIME, 0, object.Place(b, &limit), 0)
		}, &dump.Restart{Kind: dump.Restart_NANOSLEEP, Clock: unix.CLOCK_MONOTONIC}},
		{"clock_nanosleep of boot time", "230", func(b *remote.Batch) {
			b.Call("sleep", unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_BOOTTIME, 0, object.Place(b, &limit), 0)
		}, &dump.Restart{Kind: dump.Restart_NANOSLEEP, Clock: unix.CLOCK_BOOTTIME}},
		{"poll", "7", func(b *remote.Batch) {
			b.Call("poll", unix.SYS_POLL, 0, 0, int(total/time.Millisecond))
		}, &dump.Restart{Kind: dump.Restart_POLL, Clock: unix.CLOCK_MONOTONIC}},
		{"futex", "202", func(b *remote.Batch) {
			b.Call("futex", unix.SYS_FUTEX, scratch, 128, 0, object.Place(b, &limit))
		}, &dump.Restart{Kind: dump.Restart_FUTEX, Clock: unix.CLOCK_MONOTONIC}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := objecttest.Spawn(t, nil)
			s.Run(0, mapScratch)
			tid := s.Thread()
			b := s.Arena.Page(1).Batch()
			c.call(b)
			before := monotonic()
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "in the call", func() bool { return inCall(tid, c.number) })
			after := monotonic()

			// Stopped and continued, it goes on by restart_syscall.
			unix.Kill(s.PID, unix.SIGSTOP)
			eventually(t, "stopped", func() bool { return objecttest.Status(t, tid).State == 'T' })
			unix.Kill(s.PID, unix.SIGCONT)
			eventually(t, "going on", func() bool { return inCall(tid, "219") })

			thread := &dump.Thread{}
			interrupted(t, tid, func(regs *dump.Registers) {
				if regs.Rax != restartBlockErr || regs.OrigRax != unix.SYS_RESTART_SYSCALL {
					t.Fatalf("rax %d, orig_rax %d", int64(regs.Rax), regs.OrigRax)
				}
				thread.Regs = regs
				early := monotonic()
				found, err := reader.Read([]int{tid})
				if err != nil || found[tid] == nil {
					t.Fatalf("restart %v, %v", found, err)
				}
				thread.Restart = found[tid]
				left := time.Duration(found[tid].Remaining)
				if left < total-(monotonic()-before) || left > total-(early-after)+2*time.Millisecond {
					t.Errorf("%v left, want %v to %v", left, total-(monotonic()-before), total-(early-after))
				}
			})
			c.want.Known, c.want.Remaining = true, thread.Restart.Remaining
			objecttest.Same(t, c.want, thread.Restart)

			// Into another one, when some time is over.
			thread.Restart.Remaining -= int64(40 * time.Second)
			other := objecttest.Spawn(t, nil)
			other.Run(0, mapScratch)
			b = other.Arena.Page(0).Batch()
			if _, ok := RestoreRestart(b, thread); !ok {
				t.Fatal("not restored")
			}
			before = monotonic()
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "in the call again", func() bool { return inCall(other.PID, "7", "230") || c.number == "202" && futexWaits(other.PID) })
			interrupted(t, other.PID, func(regs *dump.Registers) {
				if regs.Rax != restartBlockErr {
					t.Errorf("restored: rax %d", int64(regs.Rax))
				}
				again, err := reader.Read([]int{other.PID})
				if err != nil || again[other.PID] == nil {
					t.Fatalf("restored: %v, %v", again, err)
				}
				most := thread.Restart.Remaining + int64(2*time.Millisecond)
				least := thread.Restart.Remaining - int64(monotonic()-before)
				if left := again[other.PID].Remaining; left > most || left < least {
					t.Errorf("restored: %v left, want %v to %v", time.Duration(left), time.Duration(least), time.Duration(most))
				}
			})
		})
	}
}

// futexWaits tells whether a thread waits for the word of the test, and not for its next batch.
func futexWaits(tid int) bool {
	text, _ := object.ReadProc(tid, "syscall")
	return strings.HasPrefix(string(text), "202 0x7000000 ")
}

// Without a reader, the time is that of the registers.
func TestFullRestart(t *testing.T) {
	limit := unix.NsecToTimespec(int64(total))
	absolute := unix.NsecToTimespec(int64(monotonic() + total))
	for _, c := range []struct {
		name, number string
		call         func(b *remote.Batch)
		want         *dump.Restart
	}{
		{"clock_nanosleep", "230", func(b *remote.Batch) {
			b.Call("sleep", unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_BOOTTIME, 0, object.Place(b, &limit), 0)
		}, &dump.Restart{Kind: dump.Restart_NANOSLEEP, Clock: unix.CLOCK_BOOTTIME, Remaining: int64(total)}},
		{"absolute", "230", func(b *remote.Batch) {
			b.Call("sleep", unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, object.Place(b, &absolute), 0)
		}, &dump.Restart{}},
		{"poll", "7", func(b *remote.Batch) {
			b.Call("poll", unix.SYS_POLL, 0, 0, 100000)
		}, &dump.Restart{Kind: dump.Restart_POLL, Clock: unix.CLOCK_MONOTONIC, Remaining: int64(total)}},
		{"poll without limit", "7", func(b *remote.Batch) {
			b.Call("poll", unix.SYS_POLL, 0, 0, -1)
		}, &dump.Restart{Kind: dump.Restart_POLL, Clock: unix.CLOCK_MONOTONIC, Remaining: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := objecttest.Spawn(t, nil)
			b := s.Arena.Page(0).Batch()
			c.call(b)
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "in the call", func() bool { return inCall(s.PID, c.number) })
			interrupted(t, s.PID, func(regs *dump.Registers) {
				got, err := FullRestart(s.PID, regs)
				if err != nil {
					t.Fatal(err)
				}
				objecttest.Same(t, c.want, got)
			})
		})
	}
	t.Run("rest is known by rmtp", func(t *testing.T) {
		s := objecttest.Spawn(t, nil)
		s.Run(0, mapScratch)
		b := s.Arena.Page(0).Batch()
		b.Call("sleep", unix.SYS_NANOSLEEP, object.Place(b, &limit), scratch)
		before := monotonic()
		if err := b.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "in the call", func() bool { return inCall(s.PID, "35") })
		interrupted(t, s.PID, func(regs *dump.Registers) {
			got, err := FullRestart(s.PID, regs)
			if err != nil || !got.Known || got.Remaining > int64(total+time.Millisecond) || got.Remaining < int64(total-(monotonic()-before)) {
				t.Errorf("%v, %v", got, err)
			}
		})
	})
}
