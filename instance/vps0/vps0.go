// Package vps0 looks at the instance that is the host itself.
package vps0

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"vps/instance/inside"
)

// Info is what there is to tell of the host.
type Info struct {
	Hostname           string
	Init               string    // the program of its pid 1; "" if that cannot be seen
	Booted             time.Time // when it was started
	Processes, Threads int
	CPU                uint64 // processor time, nanoseconds
	Memory             uint64 // in use, bytes
}

// Read returns what there is to tell now.
func Read() (Info, error) {
	name, err := os.Hostname()
	if err != nil {
		return Info{}, err
	}
	info := Info{Hostname: name}
	info.Init, _ = os.Readlink("/proc/1/exe")
	if info.Booted, err = bootTime(); err != nil {
		return info, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return info, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := inside.ReadStat(pid); err == nil {
			info.Processes++
			info.Threads += s.Threads
		}
	}
	info.CPU, info.Memory, err = usage()
	return info, err
}

// usage reads processor time and used memory of the host, proc(5).
func usage() (cpu, memory uint64, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	const idle, iowait = 4, 5
	for n, field := range strings.Fields(string(line)) {
		ticks, err := strconv.ParseUint(field, 10, 64)
		if err == nil && n != idle && n != iowait && n <= 8 {
			cpu += ticks * inside.Tick
		}
	}
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	values := make(map[string]uint64)
	for line := range strings.Lines(string(info)) {
		fields := strings.Fields(line)
		if len(fields) >= 2 {
			values[fields[0]], _ = strconv.ParseUint(fields[1], 10, 64)
		}
	}
	return cpu, (values["MemTotal:"] - values["MemAvailable:"]) << 10, nil
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
