package task

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// rlimitNames are the limits by number (include/uapi/asm-generic/resource.h), as in the names RLIMIT_.
var rlimitNames = [...]string{
	"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE",
	"NICE", "RTPRIO", "RTTIME",
}

// rlimitLabels are the limits by number as in /proc/PID/limits (fs/proc/base.c, lnames).
var rlimitLabels = [...]string{
	"Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size", "Max resident set",
	"Max processes", "Max open files", "Max locked memory", "Max address space", "Max file locks", "Max pending signals",
	"Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout",
}

// ReadRlimits reads the limits of a process, by RLIMIT_ number. prlimit(2) on another user's process would need
// CAP_SYS_RESOURCE.
func ReadRlimits(pid int) ([]*dump.Rlimit, error) {
	text, err := object.ReadProc(pid, "limits")
	if err != nil {
		return nil, err
	}
	limits, err := parseRlimits(string(text))
	if err != nil {
		return nil, fmt.Errorf("/proc/%d/limits: %w", pid, err)
	}
	return limits, nil
}

func parseRlimits(text string) ([]*dump.Rlimit, error) {
	limits := make([]*dump.Rlimit, len(rlimitLabels))
	for line := range strings.Lines(text) {
		for n, label := range rlimitLabels {
			rest, ok := strings.CutPrefix(line, label+" ")
			if !ok {
				continue
			}
			f := strings.Fields(rest)
			if len(f) < 2 {
				return nil, fmt.Errorf("line %q", line)
			}
			p := object.FieldParser{}
			limits[n] = &dump.Rlimit{Soft: limit(&p, f[0]), Hard: limit(&p, f[1])}
			if p.Err != nil {
				return nil, fmt.Errorf("%s: %w", label, p.Err)
			}
		}
	}
	for n, l := range limits {
		if l == nil {
			return nil, fmt.Errorf("no %q", rlimitLabels[n])
		}
	}
	return limits, nil
}

func limit(p *object.FieldParser, s string) uint64 {
	if s == "unlimited" {
		return unix.RLIM_INFINITY
	}
	return p.Uint(s, 10)
}

// HardLimits returns our own hard limits, by RLIMIT_ number: without CAP_SYS_RESOURCE on the host, no process of
// ours can have more.
func HardLimits() ([]uint64, error) {
	hard := make([]uint64, len(rlimitNames))
	for n := range hard {
		var l unix.Rlimit
		if err := unix.Prlimit(0, n, nil, &l); err != nil {
			return nil, fmt.Errorf("get RLIMIT_%s: %w", rlimitNames[n], err)
		}
		hard[n] = l.Max
	}
	return hard, nil
}

// CheckRlimits names the limits of a process that are above the highest that can be given.
func CheckRlimits(p *dump.Process, hard []uint64) error {
	var above []string
	for n, l := range p.GetRlimits() {
		if n < len(hard) && l.GetHard() > hard[n] {
			above = append(above, fmt.Sprintf("RLIMIT_%s %s (here at most %s)", rlimitNames[n], limitText(l.GetHard()), limitText(hard[n])))
		}
	}
	if above == nil {
		return nil
	}
	return fmt.Errorf("pid %d: this host cannot give %s without CAP_SYS_RESOURCE", p.GetPid(), strings.Join(above, ", "))
}

func limitText(v uint64) string {
	if v == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return fmt.Sprint(v)
}

// RaiseRlimits raises the hard limits of a process of ours from outside, which needs CAP_SYS_RESOURCE. Its children
// inherit them.
func RaiseRlimits(pid int, hard []uint64) error {
	for n, v := range hard {
		var l unix.Rlimit
		if err := unix.Prlimit(pid, n, nil, &l); err != nil {
			return fmt.Errorf("get RLIMIT_%s: %w", rlimitNames[n], err)
		}
		if v <= l.Max {
			continue
		}
		if err := unix.Prlimit(pid, n, &unix.Rlimit{Cur: l.Cur, Max: v}, nil); err != nil {
			return fmt.Errorf("raise RLIMIT_%s to %s: %w", rlimitNames[n], limitText(v), err)
		}
	}
	return nil
}

// RestoreRlimits sets the limits of a stub, none above hard (see [CheckRlimits]). It comes late: the
// restore itself may need more threads, descriptors, memory and queued signals than the process may have.
func RestoreRlimits(b *remote.Batch, p *dump.Process, hard []uint64) {
	for n, l := range p.GetRlimits() {
		if n >= len(hard) {
			return
		}
		limit := b.Words(min(l.GetSoft(), l.GetHard(), hard[n]), min(l.GetHard(), hard[n]))
		b.Call("set RLIMIT_"+rlimitNames[n], unix.SYS_PRLIMIT64, 0, n, limit, 0)
	}
}
