package instance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat, nanoseconds: USER_HZ is 100 on every architecture that matters.
const tick = 10_000_000

// stat is what /proc/PID/stat tells, proc_pid_stat(5).
type stat struct {
	state   string
	ppid    int
	cpu     uint64 // nanoseconds
	threads int
	rss     uint64 // bytes
	comm    string
}

func readStat(pid int) (s stat, err error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return s, err
	}
	text := string(data)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return s, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	s.comm = text[open+1 : end]
	f := strings.Fields(text[end+1:])
	if len(f) < 22 {
		return s, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	number := func(field int) uint64 { // counted as the manual page does
		n, _ := strconv.ParseUint(f[field-3], 10, 64)
		return n
	}
	s.state, s.ppid, s.threads = f[0], int(number(4)), int(number(20))
	s.cpu = (number(14) + number(15)) * tick
	s.rss = number(24) * uint64(os.Getpagesize())
	return s, nil
}

// Processes lists the processes of an instance by their pid inside.
func (h *Host) Processes(id string) ([]ProcessInfo, error) {
	i, err := h.get(id)
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	i.mu.Lock()
	group, c, first := i.group, i.cell, i.rec.FirstUID
	i.mu.Unlock()
	if group == nil || c == nil {
		return nil, nil
	}
	pids, err := group.Procs()
	if err != nil {
		return nil, fmt.Errorf("ps %s: %w", id, err)
	}
	names := userNames(c.Init.PID)
	inside := make(map[int]int)
	var list []ProcessInfo
	for _, pid := range pids {
		p, err := readProcess(pid, first, names)
		if err != nil {
			continue // it has ended
		}
		inside[pid] = p.PID
		list = append(list, p)
	}
	for n := range list {
		list[n].PPID = inside[list[n].PPID] // 0 for a parent outside
	}
	slices.SortFunc(list, func(a, b ProcessInfo) int { return a.PID - b.PID })
	return list, nil
}

// readProcess describes a process; its PPID is still the host's.
func readProcess(pid, firstUID int, names map[int]string) (p ProcessInfo, err error) {
	s, err := readStat(pid)
	if err != nil {
		return p, err
	}
	p = ProcessInfo{HostPID: pid, PPID: s.ppid, State: s.state, Threads: s.threads, CPUNanos: s.cpu, RSSBytes: s.rss}
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
		p.Command = "[" + printable(s.comm) + "]"
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

// bootTime is when the host was started, proc(5).
func bootTime() (time.Time, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			sec, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return time.Unix(sec, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("/proc/stat: no btime")
}
