package object

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// restartFunctions are the kernel's functions that go on with an interrupted call, by the beginnings of their names.
var restartFunctions = map[string]dump.Restart_Kind{
	"hrtimer_nanosleep_restart":     dump.Restart_NANOSLEEP,
	"alarm_timer_nsleep_restart":    dump.Restart_NANOSLEEP,
	"posix_cpu_nsleep_restart":      dump.Restart_NANOSLEEP,
	"do_restart_poll":               dump.Restart_POLL,
	"futex_wait_restart":            dump.Restart_FUTEX,
	"__x64_sys_nanosleep_restart":   dump.Restart_NANOSLEEP,
	"compat_hrtimer_nanosleep_rest": dump.Restart_NANOSLEEP,
}

var _ = binary.LittleEndian
var _ = fmt.Sprint
var _ = slices.Sort[[]int]
var _ = strings.Cut
var _ time.Duration
var _ unix.Signal
var _ remote.Mode
