package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// idleInstances is how many instances the cost of one is averaged over.
const idleInstances = 8

// ownIdle measures what an idle instance costs beside its own processes: the growth of the daemon and what is
// kept outside for each instance, as proportional set size.
func (l *lab) ownIdle() (contender, error) {
	var list []*instance
	for n := range idleInstances {
		i, err := l.instance(fmt.Sprintf("idle%d", n), "/sbin/init")
		if err != nil {
			return contender{}, err
		}
		list = append(list, i)
	}
	return contender{name: us, round: func() (s sample, err error) {
		if _, err := l.run(l.vpsctl, "list"); err != nil { // the daemon is there now
			return nil, err
		}
		known := make(map[int]bool)
		for _, pid := range processes() {
			known[pid] = true
		}
		before, err := l.outside(known)
		if err != nil {
			return nil, err
		}
		defer func() {
			for _, i := range list {
				err = errors.Join(err, i.remove())
			}
		}()
		for _, i := range list {
			if _, err := i.start(); err != nil {
				return nil, err
			}
		}
		after, err := l.outside(known)
		return sample{"idle instance beyond its processes, MiB": (after - before) / idleInstances}, err
	}}, nil
}

// outside sums the memory, in MiB, of our processes in the host's pid namespace: those that run our copy of
// vpsctl, and those younger than known whose program is a memfd.
func (l *lab) outside(known map[int]bool) (float64, error) {
	host, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, pid := range processes() {
		dir := fmt.Sprintf("/proc/%d/", pid)
		exe, err := os.Readlink(dir + "exe")
		if err != nil || exe != l.vpsctl && (known[pid] || !strings.HasPrefix(exe, "/memfd:")) {
			continue
		}
		if ns, err := os.Readlink(dir + "ns/pid"); err != nil || ns != host {
			continue
		}
		pss, err := proportionalSize(dir + "smaps_rollup")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		sum += pss
	}
	return sum, nil
}

// proportionalSize reads Pss, in MiB, from a file like /proc/PID/smaps_rollup (proc(5)).
func proportionalSize(path string) (float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == "Pss:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("%s: no Pss", path)
}

// processes lists all pids.
func processes() []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	var pids []int
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processState is the letter of proc_pid_stat(5), or "" if there is no such process.
func processState(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}
