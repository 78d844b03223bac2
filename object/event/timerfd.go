package event

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

func dumpTimerFd(f *file.OpenFile, l *file.Look) error {
	clock, err := strconv.Atoi(l.Line("clockid"))
	if err != nil {
		return fmt.Errorf("fdinfo of timerfd: clockid: %w", err)
	}
	ticks, err := strconv.ParseUint(l.Line("ticks"), 10, 64)
	if err != nil {
		return fmt.Errorf("fdinfo of timerfd: ticks: %w", err)
	}
	flags, err := strconv.ParseUint(l.Line("settime flags"), 8, 32)
	if err != nil {
		return fmt.Errorf("fdinfo of timerfd: settime flags: %w", err)
	}
	t := &dump.TimerFd{Clock: int32(clock), SettimeFlags: uint32(flags), Ticks: ticks}
	if t.Value, err = timeLine(l, "it_value"); err != nil {
		return err
	}
	if t.Interval, err = timeLine(l, "it_interval"); err != nil {
		return err
	}
	f.Record.Kind = &dump.File_Timerfd{Timerfd: t}
	return nil
}

// timeLine parses a line like it_value: (0, 49406829): seconds and nanoseconds.
func timeLine(l *file.Look, key string) (int64, error) {
	var ts unix.Timespec
	if _, err := fmt.Sscanf(l.Line(key), "(%d, %d)", &ts.Sec, &ts.Nsec); err != nil {
		return 0, fmt.Errorf("fdinfo of timerfd: %s: %w", key, err)
	}
	return ts.Nano(), nil
}

func (r *restorer) restoreTimerFd(s *remote.Script, file *dump.File, fd int) {
	t := file.GetTimerfd()
	b := s.Room(1024)
	b.Call("timerfd_create", unix.SYS_TIMERFD_CREATE, t.GetClock(), 0)
	r.Settle(b, fd)
	value, flags := t.GetValue(), 0
	if value == 0 && t.GetInterval() != 0 {
		// It has expired, and is armed again by the next read(2). Time 0 would disarm it for good.
		value = 1
	}
	// A time of day is kept as such; every other clock goes on from where it was.
	day := r.Set().Instance.GetClocks().GetRealtime()
	if t.GetClock() == unix.CLOCK_REALTIME && t.GetSettimeFlags()&unix.TFD_TIMER_ABSTIME != 0 && value > 1 && day != 0 {
		value += day
		flags = unix.TFD_TIMER_ABSTIME | int(t.GetSettimeFlags()&unix.TFD_TIMER_CANCEL_ON_SET)
	}
	if value != 0 {
		interval, first := unix.NsecToTimespec(t.GetInterval()), unix.NsecToTimespec(value)
		b.Call("timerfd_settime", unix.SYS_TIMERFD_SETTIME, fd, flags, object.Place(b, &unix.ItimerSpec{Interval: interval, Value: first}), 0)
	}
	if t.GetTicks() != 0 {
		b.Call("set ticks of timerfd", unix.SYS_IOCTL, fd, linux.TFD_IOC_SET_TICKS, b.Words(t.GetTicks()))
	}
}
