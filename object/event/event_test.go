package event_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
)

func TestKinds(t *testing.T) {
	objecttest.RunKinds(t, []objecttest.KindTest{
		{
			Name: "eventfd",
			Hold: `
e = os.eventfd(7, os.EFD_NONBLOCK); s = os.eventfd(2, os.EFD_SEMAPHORE); z = os.eventfd(0)
ready(e=e, s=s)`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("e", "\x07\x00\x00\x00\x00\x00\x00\x00", "s", "\x01\x00\x00\x00\x00\x00\x00\x00",
					"s", "\x01\x00\x00\x00\x00\x00\x00\x00", "s", "(nothing)")
			},
		},
		{
			Name: "timerfd",
			Hold: `
def timer(clock, value, interval, flags=0):
    fd = libc.timerfd_create(clock, 0)
    spec = struct.pack('llll', int(interval), int(interval % 1 * 1e9), int(value), int(value % 1 * 1e9))
    assert libc.timerfd_settime(fd, flags, spec, None) == 0
    return fd
once = timer(1, 300, 0); periodic = timer(1, 0.001, 500); day = timer(0, time.time() + 700, 0, 1); idle = libc.timerfd_create(7, 0)
past = timer(1, 0.001, 0)
select.select([periodic], [], []); select.select([past], [], [])
ready(once=once, periodic=periodic, day=day, past=past)`,
			Change: func(b *objecttest.Bag) {
				var ts unix.Timespec
				unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
				b.Set.Instance = &dump.Instance{Clocks: &dump.Clocks{Realtime: ts.Nano()}}
			},
			Check: func(r *objecttest.Rig) {
				r.WantReads("periodic", "\x01\x00\x00\x00\x00\x00\x00\x00", "past", "\x01\x00\x00\x00\x00\x00\x00\x00", "once", "(nothing)")
				var left unix.ItimerSpec
				if err := unix.TimerfdGettime(r.FD("periodic"), &left); err != nil || left.Value.Sec < 490 {
					r.T.Errorf("the periodic timer does not go on after its read: %v, %v", left, err)
				}
			},
		},
		{
			Name: "signalfd and owner",
			Hold: `
mask = (1 << 9) | (1 << 11)
s = libc.signalfd(-1, struct.pack('Q', mask), 0)
r, w = os.pipe()
fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid()); fcntl.fcntl(r, 10, signal.SIGUSR2)
ready(s=s, r=r)`,
		},
	})
}

// A snapshot is hostile input.
func TestUnknownClock(t *testing.T) {
	b := objecttest.NewBag()
	b.Set.Files[1] = &dump.File{Id: 1, Kind: &dump.File_Timerfd{Timerfd: &dump.TimerFd{Clock: 99}}}
	objecttest.RefuseAll(t, map[string]*objecttest.Bag{"clock": b})
}
