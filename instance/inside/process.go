package inside

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Tick is the unit of times in /proc/PID/stat, nanoseconds: USER_HZ is 100 on every architecture that matters.
const Tick = 10_000_000

// Stat is what /proc/PID/stat tells, proc_pid_stat(5).
type Stat struct {
	State   string
	PPID    int
	CPU     uint64 // nanoseconds
	Threads int
	RSS     uint64 // bytes
	Comm    string
}

// ReadStat reads it of a process.
func ReadStat(pid int) (s Stat, err error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return s, err
	}
	text := string(data)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return s, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	s.Comm = text[open+1 : end]
	f := strings.Fields(text[end+1:])
	if len(f) < 22 {
		return s, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	number := func(field int) uint64 { // counted as the manual page does
		n, _ := strconv.ParseUint(f[field-3], 10, 64)
		return n
	}
	s.State, s.PPID, s.Threads = f[0], int(number(4)), int(number(20))
	s.CPU = (number(14) + number(15)) * Tick
	s.RSS = number(24) * uint64(os.Getpagesize())
	return s, nil
}

// Process is a process of an instance, as ps shows it.
type Process struct {
	PID      int    `json:"pid"`      // inside
	PPID     int    `json:"ppid"`     // inside; 0 for init and what exec started
	HostPID  int    `json:"host_pid"` // on the host
	UID      int    `json:"uid"`      // inside
	User     string `json:"user"`     // its name by the instance's passwd, else the number
	State    string `json:"state"`    // R, S, D, Z, T, ...
	Threads  int    `json:"threads"`
	CPUNanos uint64 `json:"cpu_ns"`
	RSSBytes uint64 `json:"rss_bytes"`
	Command  string `json:"command"`
}

// Processes describes the processes with the given pids on the host, by their pid inside. init is the host's pid of the
// instance's init, and firstUID the host's id of its root. What has ended meanwhile is left out.
func Processes(pids []int, init, firstUID int) []Process {
	names := userNames(init)
	inner := make(map[int]int)
	var list []Process
	for _, pid := range pids {
		p, err := readProcess(pid, firstUID, names)
		if err != nil {
			continue
		}
		inner[pid] = p.PID
		list = append(list, p)
	}
	for n := range list {
		list[n].PPID = inner[list[n].PPID] // 0 for a parent outside
	}
	slices.SortFunc(list, func(a, b Process) int { return a.PID - b.PID })
	return list
}

// readProcess describes a process; its PPID is still the host's.
func readProcess(pid, firstUID int, names map[int]string) (p Process, err error) {
	s, err := ReadStat(pid)
	if err != nil {
		return p, err
	}
	p = Process{HostPID: pid, PPID: s.PPID, State: s.State, Threads: s.Threads, CPUNanos: s.CPU, RSSBytes: s.RSS}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case name == "NSpid" && len(f) >= 2:
			p.PID, _ = strconv.Atoi(f[1]) // by namespace, from ours inwards
		case name == "Uid" && len(f) == 4:
			p.UID, _ = strconv.Atoi(f[1])
			p.UID -= firstUID
		}
	}
	p.User = names[p.UID]
	if p.User == "" {
		p.User = strconv.Itoa(p.UID)
	}
	args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return p, err
	}
	p.Command = printable(strings.TrimRight(strings.ReplaceAll(string(args), "\x00", " "), " "))
	if p.Command == "" {
		p.Command = "[" + printable(s.Comm) + "]"
	}
	return p, nil
}

// printable keeps what an instance calls its processes from talking to our terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
