package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lab is where the measurements happen: the programs, and two folders that vanish at the end.
type lab struct {
	ctx    context.Context
	disk   string // root file systems
	memory string // on tmpfs: snapshots, images, our VPS_HOME

	vpsctl, runc, criu, runsc string // paths; empty: does not take part

	instances []*instance    // made so far
	outsider  place          // made when a work needs it
	undos     []func() error // for close
}

func newLab(ctx context.Context, ours string) (_ *lab, err error) {
	l := &lab{ctx: ctx, criu: os.Getenv("CRIU"), runsc: os.Getenv("RUNSC")}
	l.runc, _ = exec.LookPath("runc") // not there: does not take part
	for _, path := range []string{l.criu, l.runsc} {
		if path == "" {
			continue
		}
		if err := unix.Access(path, unix.X_OK); err != nil {
			return nil, fmt.Errorf("rival %s: %w", path, err)
		}
	}
	if l.disk, err = os.MkdirTemp("", "vps-bench-"); err != nil {
		return nil, err
	}
	if l.memory, err = os.MkdirTemp("/dev/shm", "vps-bench-"); err != nil {
		return nil, errors.Join(err, l.close())
	}
	// Instances in their own user namespaces have to pass.
	if err := errors.Join(os.Chmod(l.disk, 0o755), os.Chmod(l.memory, 0o755)); err != nil {
		return nil, errors.Join(err, l.close())
	}
	if ours != "" {
		// A copy of our own tells our daemon and keepers from those of other homes.
		l.vpsctl = filepath.Join(l.disk, "vpsctl")
		if err := copyProgram(ours, l.vpsctl); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	return l, nil
}

func copyProgram(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("%w (run make build)", err)
	}
	return os.WriteFile(to, b, 0o755)
}

// close ends what of ours still runs and removes the folders.
func (l *lab) close() error {
	for _, i := range l.instances {
		_ = i.remove() // nearly always removed already
	}
	var errs []error
	for _, undo := range l.undos {
		errs = append(errs, undo())
	}
	for _, pid := range l.daemons() {
		errs = append(errs, unix.Kill(pid, unix.SIGKILL))
	}
	for _, dir := range []string{l.disk, l.memory} {
		if dir != "" {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// daemons lists the processes that run our copy of vpsctl.
func (l *lab) daemons() []int {
	if l.vpsctl == "" {
		return nil
	}
	var pids []int
	for _, pid := range processes() {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == l.vpsctl {
			pids = append(pids, pid)
		}
	}
	return pids
}

// home is our VPS_HOME.
func (l *lab) home() string { return filepath.Join(l.memory, "home") }

// run runs a command to its end, with nothing on standard input, and returns how long that took.
func (l *lab) run(argv ...string) (time.Duration, error) {
	_, d, err := l.output(argv...)
	return d, err
}

// undo is run for what must happen even after an interrupt.
func (l *lab) undo(argv ...string) error {
	calm := *l
	calm.ctx = context.WithoutCancel(l.ctx)
	_, err := calm.run(argv...)
	return err
}

// output is run with the command's standard output.
func (l *lab) output(argv ...string) (string, time.Duration, error) {
	// Files, not pipes: what a command leaves running may keep them.
	out, err := os.CreateTemp(l.disk, "out")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	complaint, err := os.CreateTemp(l.disk, "err")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(complaint.Name())
	defer complaint.Close()

	cmd := exec.CommandContext(l.ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "VPS_HOME="+l.home())
	cmd.Stdout, cmd.Stderr = out, complaint
	start := time.Now()
	err = cmd.Run()
	took := time.Since(start)
	text, _ := os.ReadFile(out.Name())
	if err != nil {
		why, _ := os.ReadFile(complaint.Name())
		return string(text), took, fmt.Errorf("%s: %w: %s%s", strings.Join(argv, " "), err, text, why)
	}
	return string(text), took, nil
}

// background starts a program, which end ends.
func (l *lab) background(argv ...string) (end func() error, err error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // killed
		return err
	}, nil
}

// versions says who takes part.
func (l *lab) versions() []string {
	var list []string
	for _, p := range []struct{ path, argument string }{
		{l.vpsctl, "version"}, {l.runc, "--version"}, {l.runsc, "--version"}, {l.criu, "--version"},
	} {
		if p.path == "" {
			continue
		}
		text, _, err := l.output(p.path, p.argument)
		if err != nil {
			text = "unknown"
		}
		name := filepath.Base(p.path)
		first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
		list = append(list, name+": "+strings.Join(strings.Fields(strings.TrimPrefix(first, name+":")), " "))
	}
	return list
}

// waitFor waits until done says so, for ten seconds at most.
func (l *lab) waitFor(what string, done func() (bool, error)) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited ten seconds for %s", what)
		}
		if err := l.ctx.Err(); err != nil {
			return err
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// readWhenThere returns the content of a file as soon as it exists.
func (l *lab) readWhenThere(path string) (content string, err error) {
	err = l.waitFor(path, func() (bool, error) {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		content = string(b)
		return true, err
	})
	return content, err
}
