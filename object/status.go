package object

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Status is what /proc/PID/status says about a task (proc_pid_status(5)). Ids are those of the reader's namespaces,
// but for the last of each of the NS lists, which is that of the task's own pid namespace.
type Status struct {
	Name                           string
	Umask                          uint32
	State                          byte // R, S, D, T, t, Z, X
	Tgid, PID, PPID                int
	TracerPID                      int
	UIDs, GIDs                     [4]uint32 // real, effective, saved, file system
	Groups                         []uint32
	NSpid, NSpgid, NSsid           []int
	Threads                        int
	SigPnd, ShdPnd                 uint64
	SigBlk, SigIgn, SigCgt         uint64
	CapInh, CapPrm, CapEff, CapBnd uint64
	CapAmb                         uint64
	NoNewPrivs                     bool
	Seccomp                        int // SECCOMP_MODE_
	SeccompFilters                 int
	ThreadFeatures                 string // shstk wrss: shadow stacks
	RssAnon, VmSwap                uint64 // in KiB: memory without a file, present and swapped
}

// ReadStatus reads the status of a process or thread by its pid or tid here.
func ReadStatus(pid int) (*Status, error) {
	text, err := ReadProc(pid, "status")
	if err != nil {
		return nil, err
	}
	s, err := parseStatus(text)
	if err != nil {
		return nil, fmt.Errorf("/proc/%d/status: %w", pid, err)
	}
	return s, nil
}

// ReadInside reads the id of a task in its own pid namespace, and nothing else of its status.
func ReadInside(tid int) (int, error) {
	text, err := ReadProc(tid, "status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text, []byte("\nNSpid:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) == 0 {
		return 0, fmt.Errorf("/proc/%d/status: no NSpid", tid)
	}
	return strconv.Atoi(string(fields[len(fields)-1]))
}

// CheckLevel refuses a task in a pid namespace below the instance's, which is level namespaces deep as seen from here
// (the length of its init's NSpid).
func (s *Status) CheckLevel(level int) error {
	if len(s.NSpid) == level {
		return nil
	}
	pid := 0
	if len(s.NSpid) > level {
		pid = s.NSpid[level-1]
	}
	return &Refusal{PID: pid, Comm: s.Name, FD: -1, Object: "its own pid namespace"}
}

// Inside returns a task's id, process group and session in its own pid namespace; 0: it lies outside of that.
func (s *Status) Inside() (pid, pgid, sid int) {
	return last(s.NSpid), last(s.NSpgid), last(s.NSsid)
}

func last(ids []int) int {
	if len(ids) == 0 {
		return 0
	}
	return ids[len(ids)-1]
}

func parseStatus(text []byte) (*Status, error) {
	s := &Status{}
	p := FieldParser{}
	for line := range bytes.Lines(text) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		v := string(bytes.TrimSpace(value))
		switch string(key) {
		case "Name":
			// The one free text: "\n" and "\\" are escaped (fs/proc/array.c, proc_task_name).
			s.Name = unescapeName(strings.TrimSuffix(strings.TrimPrefix(string(value), "\t"), "\n"))
		case "Umask":
			s.Umask = uint32(p.Uint(v, 8))
		case "State":
			if v == "" {
				return nil, errors.New("empty State")
			}
			s.State = v[0]
		case "Tgid":
			s.Tgid = p.Int(v)
		case "Pid":
			s.PID = p.Int(v)
		case "PPid":
			s.PPID = p.Int(v)
		case "TracerPid":
			s.TracerPID = p.Int(v)
		case "Uid":
			copy(s.UIDs[:], p.uint32s(v))
		case "Gid":
			copy(s.GIDs[:], p.uint32s(v))
		case "Groups":
			s.Groups = p.uint32s(v)
		case "NSpid":
			s.NSpid = p.ints(v)
		case "NSpgid":
			s.NSpgid = p.ints(v)
		case "NSsid":
			s.NSsid = p.ints(v)
		case "Threads":
			s.Threads = p.Int(v)
		case "SigPnd":
			s.SigPnd = p.Uint(v, 16)
		case "ShdPnd":
			s.ShdPnd = p.Uint(v, 16)
		case "SigBlk":
			s.SigBlk = p.Uint(v, 16)
		case "SigIgn":
			s.SigIgn = p.Uint(v, 16)
		case "SigCgt":
			s.SigCgt = p.Uint(v, 16)
		case "CapInh":
			s.CapInh = p.Uint(v, 16)
		case "CapPrm":
			s.CapPrm = p.Uint(v, 16)
		case "CapEff":
			s.CapEff = p.Uint(v, 16)
		case "CapBnd":
			s.CapBnd = p.Uint(v, 16)
		case "CapAmb":
			s.CapAmb = p.Uint(v, 16)
		case "NoNewPrivs":
			s.NoNewPrivs = v == "1"
		case "RssAnon":
			s.RssAnon = p.Uint(strings.TrimSuffix(v, " kB"), 10)
		case "VmSwap":
			s.VmSwap = p.Uint(strings.TrimSuffix(v, " kB"), 10)
		case "Seccomp":
			s.Seccomp = p.Int(v)
		case "Seccomp_filters":
			s.SeccompFilters = p.Int(v)
		case "x86_Thread_features":
			s.ThreadFeatures = v
		}
		if p.Err != nil {
			return nil, fmt.Errorf("%s: %w", key, p.Err)
		}
	}
	if s.PID == 0 || s.State == 0 {
		return nil, errors.New("no Pid or State")
	}
	return s, nil
}

func unescapeName(name string) string {
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(name)
}

// Stat is what /proc/PID/stat says (proc_pid_stat(5)). Addresses and the exit code are 0 for who may not trace the task.
type Stat struct {
	PID                int
	Comm               string
	State              byte
	PPID, PGID, SID    int // in the namespace of the reader's /proc
	TTY                int // device number of the controlling terminal
	TPGID              int
	Flags              uint64 // PF_, include/linux/sched.h
	Threads            int
	StartTime          uint64 // in clock ticks since the boot
	StartCode, EndCode uint64
	StartStack         uint64
	ExitSignal         int
	StartData, EndData uint64
	StartBrk           uint64
	ArgStart, ArgEnd   uint64
	EnvStart, EnvEnd   uint64
	ExitCode           uint32 // a zombie's wait status
	Nice               int
	RTPriority, Policy int
}

// ReadStat reads the stat file of a process or thread by its pid or tid here.
func ReadStat(pid int) (*Stat, error) {
	text, err := ReadProc(pid, "stat")
	if err != nil {
		return nil, err
	}
	s, err := parseStat(string(text))
	if err != nil {
		return nil, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return s, nil
}

func parseStat(text string) (*Stat, error) {
	// comm is any text, ") R 1" too: its end is the last parenthesis, as nothing but numbers follows.
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return nil, errors.New("no command name")
	}
	f := strings.Fields(text[end+1:])
	const first = 3 // number in the man page of f[0]
	if len(f) <= 52-first {
		return nil, fmt.Errorf("%d fields after the command name", len(f))
	}
	p := FieldParser{}
	num := func(n int) int { return p.Int(f[n-first]) }
	addr := func(n int) uint64 { return p.Uint(f[n-first], 10) }
	s := &Stat{
		PID: p.Int(strings.TrimSpace(text[:open])), Comm: text[open+1 : end], State: f[0][0],
		PPID: num(4), PGID: num(5), SID: num(6), TTY: num(7), TPGID: num(8), Flags: addr(9),
		Nice: num(19), Threads: num(20), StartTime: addr(22), StartCode: addr(26), EndCode: addr(27), StartStack: addr(28),
		ExitSignal: num(38), RTPriority: num(40), Policy: num(41),
		StartData: addr(45), EndData: addr(46), StartBrk: addr(47),
		ArgStart: addr(48), ArgEnd: addr(49), EnvStart: addr(50), EnvEnd: addr(51), ExitCode: uint32(num(52)),
	}
	return s, p.Err
}

// Membership is a line of /proc/PID/cgroup (cgroups(7)).
type Membership struct {
	Hierarchy   int      // 0: cgroup v2
	Controllers []string // of cgroup v1
	Path        string   // relative to the root of the reader's cgroup namespace
}

// ReadCgroups tells which cgroups a process is in.
func ReadCgroups(pid int) ([]Membership, error) {
	text, err := ReadProc(pid, "cgroup")
	if err != nil {
		return nil, err
	}
	var list []Membership
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(part) != 3 {
			return nil, fmt.Errorf("/proc/%d/cgroup: line %q", pid, line)
		}
		n, err := strconv.Atoi(part[0])
		if err != nil {
			return nil, fmt.Errorf("/proc/%d/cgroup: %w", pid, err)
		}
		m := Membership{Hierarchy: n, Path: part[2]}
		if part[1] != "" {
			m.Controllers = strings.Split(part[1], ",")
		}
		list = append(list, m)
	}
	return list, nil
}

// ReadProc reads a file of a task's directory in /proc with as few calls as there can be.
func ReadProc(pid int, name string) ([]byte, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/" + name
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if n == 0 {
			return buf, nil
		}
		if buf = buf[:len(buf)+n]; len(buf) == cap(buf) {
			buf = slices.Grow(buf, 4096)
		}
	}
}

// ReadInt reads a file of a task's directory in /proc that holds one number.
func ReadInt(pid int, name string, base int) (int64, error) {
	text, err := ReadProc(pid, name)
	if err != nil {
		return 0, err
	}
	p := FieldParser{}
	var v int64
	if base == 16 {
		v = int64(p.Uint(string(bytes.TrimSpace(text)), 16))
	} else {
		v = int64(p.Int(string(bytes.TrimSpace(text))))
	}
	if p.Err != nil {
		return 0, fmt.Errorf("/proc/%d/%s: %w", pid, name, p.Err)
	}
	return v, nil
}

// FieldParser parses numbers and keeps the first mistake.
type FieldParser struct{ Err error }

// Uint parses a number of the given base.
func (p *FieldParser) Uint(s string, base int) uint64 {
	v, err := strconv.ParseUint(s, base, 64)
	if err != nil && p.Err == nil {
		p.Err = err
	}
	return v
}

// Int parses a decimal number.
func (p *FieldParser) Int(s string) int {
	v, err := strconv.Atoi(s)
	if err != nil && p.Err == nil {
		p.Err = err
	}
	return v
}

func (p *FieldParser) ints(s string) []int {
	var list []int
	for f := range strings.FieldsSeq(s) {
		list = append(list, p.Int(f))
	}
	return list
}

func (p *FieldParser) uint32s(s string) []uint32 {
	var list []uint32
	for f := range strings.FieldsSeq(s) {
		list = append(list, uint32(p.Uint(f, 10)))
	}
	return list
}
