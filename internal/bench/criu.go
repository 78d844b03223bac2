package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vps/internal/testimage"
)

// boxCommand is the first argument by which this program is called as one of the two processes of a box: pid
// and mount namespaces of their own, in which CRIU finds the pids free that it restores.
const boxCommand = "criu-box"

// answer is what the box says to each line it gets.
type answer struct {
	Sample sample `json:"sample"`
	Error  string `json:"error,omitempty"`
}

// criuContender starts a box in which each round starts the named work, dumps it by CRIU and restores it.
func (l *lab) criuContender(work string) (contender, error) {
	cmd := exec.Command("/proc/self/exe", boxCommand, "reaper", l.criu, l.memory, work)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return contender{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return contender{}, err
	}
	if err := cmd.Start(); err != nil {
		return contender{}, err
	}
	answers := json.NewDecoder(out)
	return contender{"criu", func() (sample, error) {
		if _, err := fmt.Fprintln(in, "round"); err != nil {
			return nil, err
		}
		var a answer
		if err := answers.Decode(&a); err != nil {
			return nil, fmt.Errorf("answer from the box: %w", err)
		}
		if a.Error != "" {
			return nil, errors.New(a.Error)
		}
		return a.Sample, nil
	}, func() error {
		in.Close()
		return cmd.Wait()
	}}, nil
}

// boxMain is the main function inside the box. Its pid 1 only reaps; the other process does the rounds.
func boxMain(args []string) int {
	role, args := args[0], args[1:]
	var err error
	switch role {
	case "reaper":
		err = reap(args)
	case "worker":
		err = rounds(args[0], args[1], args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: criu box:", err)
		return 1
	}
	return 0
}

// reap runs the worker and collects what it orphans.
func reap(args []string) error {
	cmd := exec.Command("/proc/self/exe", append([]string{boxCommand, "worker"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && err != unix.EINTR {
			return err
		}
		if pid == cmd.Process.Pid {
			return nil
		}
	}
}

// box is the inside of a box.
type box struct {
	*lab
	images string
	work   string
}

func rounds(criu, memory, work string) error {
	b := &box{&lab{ctx: context.Background(), disk: memory, memory: memory, criu: criu}, filepath.Join(memory, "criu-"+idOf(work)), work}
	if err := b.setUp(); err != nil {
		return err
	}
	answers := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var a answer
		s, err := b.round()
		if err != nil {
			a.Error = err.Error()
		}
		a.Sample = s
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

// setUp gives the box its own /proc and loopback, and the tmpfs on /run without which CRIU probes the kernel every time.
func (b *box) setUp() error {
	// Descriptors from outside, which whoever started us left open, could not be dumped.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for target, fs := range map[string]string{"/proc": "proc", "/run": "tmpfs"} {
		if err := unix.Mount(fs, target, fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", fs, target, err)
		}
	}
	if _, err := b.run("ip", "link", "set", "lo", "up"); err != nil { // CRIU tries TCP
		return err
	}
	if b.work != gapWork {
		return nil
	}
	_, err := b.network()
	return err
}

// round starts the work afresh, dumps it (which kills it), restores it, looks whether it is whole, and ends it.
func (b *box) round() (sample, error) {
	if err := os.RemoveAll(b.images); err != nil {
		return nil, err
	}
	if err := os.Mkdir(b.images, 0o700); err != nil {
		return nil, err
	}
	socket := b.images + ".sock"
	ask := func(command ...string) (string, error) {
		text, _, err := b.output(append([]string{"/usr/bin/redis-cli", "-s", socket}, command...)...)
		return strings.TrimSpace(text), err
	}
	cmd := exec.Command("/bin/busybox", "sleep", "1000000")
	keys := redisKeys[b.work]
	if keys > 0 {
		config := b.images + ".conf"
		text := strings.ReplaceAll(testimage.RedisConfig, testimage.RedisSocket, socket)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return nil, err
		}
		cmd = exec.Command("/usr/bin/redis-check-rdb", config)
		cmd.Args[0] = "redis-server"
		if b.work == gapWork {
			cmd.Args = append(cmd.Args, redisAtPort...)
		}
	}
	work := loadOf(b.work)
	if work != nil {
		cmd = work.command()
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	if keys > 0 {
		if err := b.fillRedis(ask, keys); err != nil {
			return nil, err
		}
	}
	ready := func() (bool, error) { return processState(pid) == "S", nil }
	if work != nil {
		ready = func() (bool, error) { return work.ready(pid) }
	}
	if err := b.waitFor("the work to sleep", ready); err != nil {
		return nil, err
	}

	// Its pids are free when the reaper has collected its children.
	gone := func() (bool, error) { return unix.Kill(-pid, 0) == unix.ESRCH, nil }
	var s sample
	cycle := func(options ...string) error {
		stats, dump, err := b.criuCommand("dump", append(options, "--tree", strconv.Itoa(pid), "--display-stats")...)
		if err != nil {
			return err
		}
		_ = cmd.Wait() // killed by CRIU
		if err := b.waitFor("the work to be gone", gone); err != nil {
			return err
		}
		_, restore, err := b.criuCommand("restore", append(options, "--restore-detached")...)
		if err != nil {
			return err
		}
		s = cycleSample(b.work, milliseconds(dump), milliseconds(restore))
		if t, ok := frozen(stats); ok {
			s[b.work+": frozen, ms"] = milliseconds(t)
		}
		return nil
	}
	err := b.watch(cycle, func(gap float64) { s[gapCycle] = gap })
	if err != nil {
		return nil, err
	}
	if keys > 0 {
		err = checkRedis(ask, keys)
	}
	if work != nil {
		err = b.waitFor("the work to be back", ready)
	}
	// It leads a session of its own, and all of it is in one process group.
	if err := errors.Join(err, unix.Kill(-pid, unix.SIGKILL)); err != nil {
		return nil, fmt.Errorf("restored %s: %w", b.work, err)
	}
	return s, b.waitFor("the work to end", gone)
}

// watch has the work dumped and restored; if it has clients, under their eyes. CRIU drops what they send meanwhile, by nftables.
func (b *box) watch(cycle func(options ...string) error, seen func(gap float64)) (err error) {
	if b.work != gapWork {
		return cycle()
	}
	c, err := b.newClients(b.outsider, hostAddress+":"+redisPort)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	gap, err := c.gap(func() error { return cycle("--tcp-established", "--network-lock", "nftables") })
	if err == nil {
		seen(gap)
	}
	return err
}

func (b *box) criuCommand(verb string, args ...string) (string, time.Duration, error) {
	said, took, err := b.output(append([]string{b.criu, verb, "--images-dir", b.images, "--log-file", verb + ".log"}, args...)...)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(b.images, verb+".log"))
		return "", 0, fmt.Errorf("%w\n%s", err, log[max(0, len(log)-1500):])
	}
	return said, took, nil
}
