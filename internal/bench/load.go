package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"vps/internal/testimage"
)

// load is a program whose dump and restore are measured, ours as an instance's init and CRIU's as a process tree.
type load struct {
	name string
	argv []string
	opts []testimage.Option

	// It is ready when it has as many children, threads and bytes of memory.
	children, threads, memory int
	lazy                      bool // it is restored lazily once more
}

const python = "/usr/bin/python3"

var loads = []load{
	{name: "100 processes", children: 100,
		argv: []string{"/bin/busybox", "sh", "-c", "for i in `seq 100`; do sleep 1000000 & done; wait"}},
	{name: "1,000 threads", threads: 1001, opts: []testimage.Option{testimage.Python()},
		argv: []string{python, "-c", "import threading, time; [threading.Thread(target=time.sleep, args=(1e6,)).start() for _ in range(1000)]; time.sleep(1e6)"}},
	{name: "2 GiB", memory: 2 << 30, lazy: true, opts: []testimage.Option{testimage.Python()},
		argv: []string{python, "-c", "import time; b = bytes(range(1, 129)) * (1 << 24); time.sleep(1e6)"}},
}

// loadOf returns the load of a work, nil if it has none.
func loadOf(name string) *load {
	for i := range loads {
		if loads[i].name == name {
			return &loads[i]
		}
	}
	return nil
}

// ready tells whether a process is what the load is to be.
func (w *load) ready(pid int) (bool, error) {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return false, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, err
	}
	field := func(name string) (n int) {
		_, rest, _ := bytes.Cut(status, []byte("\n"+name+":"))
		fmt.Sscan(string(rest), &n)
		return n
	}
	return len(bytes.Fields(children)) >= w.children && field("Threads") >= w.threads && field("VmRSS") >= w.memory>>10 &&
		processState(pid) == "S", nil
}

// ownLoad measures ours.
func (l *lab) ownLoad(w *load) (contender, error) {
	var init []string
	for _, arg := range w.argv {
		init = append(init, `"`+arg+`"`)
	}
	i, err := l.instance(idOf("load "+w.name), strings.Join(init, " "), w.opts...)
	check := func() error {
		pid, err := i.pid()
		if err != nil {
			return err
		}
		return l.waitFor(w.name, func() (bool, error) { return w.ready(pid) })
	}
	return contender{name: us, round: func() (sample, error) {
		if _, err := i.start(); err != nil {
			return nil, err
		}
		err := check()
		var s sample
		if err == nil {
			s, err = i.cycle(w.name, check)
		}
		if err == nil && w.lazy {
			s[w.name+": restored to running, lazy, ms"], err = i.lazily(check)
		}
		return s, errors.Join(err, i.remove())
	}}, err
}

// pid is that of init, on the host.
func (i *instance) pid() (int, error) {
	text, _, err := i.output(i.vpsctl, "show", i.id)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "Init's pid"); ok {
			return strconv.Atoi(strings.Trim(value, ": \t\n"))
		}
	}
	return 0, fmt.Errorf("show %s: no pid in %q", i.id, text)
}

// lazily dumps the instance and restores it lazily, and returns how long that took until it ran, in ms.
func (i *instance) lazily(check func() error) (float64, error) {
	if _, err := i.run(i.vpsctl, "snapshot", "--stop", i.id, i.file); err != nil {
		return 0, err
	}
	defer os.Remove(i.file)
	took, err := i.run(i.vpsctl, "restore", "--lazy", "--resume", "--config", i.config, i.id, i.file)
	if err != nil {
		return 0, err
	}
	return milliseconds(took), check()
}

// frozen is the time that CRIU says it kept the processes frozen (--display-stats).
func frozen(stats string) (time.Duration, bool) {
	_, rest, ok := strings.Cut(stats, "Frozen time:")
	var us int
	if _, err := fmt.Sscan(rest, &us); !ok || err != nil {
		return 0, false
	}
	return time.Duration(us) * time.Microsecond, true
}

// command is the load's program here.
func (w *load) command() *exec.Cmd { return exec.Command(w.argv[0], w.argv[1:]...) }
