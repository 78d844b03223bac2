package object

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
)

// DumpInstance fills in what can be read of an instance as a whole, through its init, by its pid here: names.
func DumpInstance(in *dump.Instance, init int) error {
	var u unix.Utsname
	if err := InNamespace(init, "uts", unix.CLONE_NEWUTS, func() error { return unix.Uname(&u) }); err != nil {
		return err
	}
	in.Hostname, in.Domainname = unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Domainname[:])
	in.Kernel = unix.ByteSliceToString(u.Release[:])
	return nil
}

// ReadClocks reads the clocks as the time namespace of a process shows them (time_namespaces(7)).
func ReadClocks(pid int) (*dump.Clocks, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/timens_offsets", pid))
	if err != nil {
		return nil, err
	}
	offsets := make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		var name string
		var seconds, nanos int64
		if _, err := fmt.Sscan(line, &name, &seconds, &nanos); err != nil {
			return nil, fmt.Errorf("/proc/%d/timens_offsets: line %q: %w", pid, line, err)
		}
		offsets[name] = seconds*1e9 + nanos
	}
	now := func(clock int32) int64 {
		var ts unix.Timespec
		unix.ClockGettime(clock, &ts)
		return ts.Nano()
	}
	return &dump.Clocks{
		Realtime:  now(unix.CLOCK_REALTIME),
		Monotonic: now(unix.CLOCK_MONOTONIC) + offsets["monotonic"],
		Boottime:  now(unix.CLOCK_BOOTTIME) + offsets["boottime"],
	}, nil
}
