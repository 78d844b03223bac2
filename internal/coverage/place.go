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

	"vps/internal/testimage"
)

// bench is a host of our own, with one root file system for all instances.
type bench struct {
	dir, root, vpsctl string
}

func newBench(vpsctl string) (_ *bench, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root")
	}
	b := &bench{}
	if b.dir, err = os.MkdirTemp("", "vps-coverage-"); err != nil {
		return nil, err
	}
	b.root = filepath.Join(b.dir, "root")
	// A copy of our own tells our daemon from those of other homes.
	b.vpsctl = filepath.Join(b.dir, "vpsctl")
	program, err := os.ReadFile(vpsctl)
	if err != nil {
		err = fmt.Errorf("%w (run make build)", err)
	}
	err = errors.Join(err, os.Chmod(b.dir, 0o755), os.WriteFile(b.vpsctl, program, 0o755), testimage.Make(b.root, testimage.Network(), testimage.Program("/usr/bin/dash", "/usr/bin/sh")))
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// close ends the daemon, and removes everything. The instances have ended.
func (b *bench) close() error {
	var errs []error
	if _, err := os.Stat(b.vpsctl); err == nil {
		dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
		for _, dir := range dirs {
			if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil && exe == b.vpsctl {
				var pid int
				fmt.Sscanf(filepath.Base(dir), "%d", &pid)
				errs = append(errs, unix.Kill(pid, unix.SIGTERM))
			}
		}
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// place is an instance in which programs are run one after the other.
type place struct {
	*bench
	id, config, snapshot string
}

func (b *bench) place(id string) *place {
	return &place{b, id, filepath.Join(b.dir, id+".conf"), filepath.Join(b.dir, id+".vps")}
}

// Limits of waiting.
const (
	helpTime   = 3 * time.Second
	startTime  = 15 * time.Second
	commandMax = 60 * time.Second
	verdictMax = 20 * time.Second
)

// command runs vpsctl, and returns what it said.
func (p *place) command(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.vpsctl, args...)
	cmd.Env = append(os.Environ(), "VPS_HOME="+filepath.Join(p.dir, "home"))
	cmd.WaitDelay = time.Second
	text, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(text)), err
}

// run runs one program through a snapshot and a restore. The error is one of ours; what is the program's or the snapshot's is in
// the result.
func (p *place) run(ctx context.Context, prog program) (r result, err error) {
	r = result{name: prog.name}
	config := fmt.Sprintf("NAME = %s\nFSROOT = '%s'\nINIT = /sbin/init\n", p.id, p.root)
	if err := os.WriteFile(p.config, []byte(config), 0o600); err != nil {
		return r, err
	}
	inside := "/zdtm/" + prog.name
	dir := filepath.Join(p.root, inside)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o777), copyProgram(prog.path, filepath.Join(dir, prog.name))); err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(p.snapshot))
	}()
	help, err := p.help(ctx, prog, inside)
	if err != nil {
		return r, err
	}
	if err := p.start(ctx); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.end(ctx)) }()
	script := fmt.Sprintf("cd %s && TMPDIR=/tmp exec ./%s %s", inside, prog.name, strings.Join(prog.arguments(help), " "))
	said, startErr := p.command(ctx, startTime, "exec", p.id, "--", "/bin/sh", "-c", script)
	pid, pidErr := os.ReadFile(filepath.Join(dir, prog.name+".pid"))
	out := filepath.Join(dir, prog.name+".out")
	if startErr != nil || pidErr != nil {
		r.verdict, r.why = cannotStart, lastWords(out, said)
		return r, nil
	}
	if text, err := p.command(ctx, commandMax, "snapshot", "--stop", p.id, p.snapshot); err != nil {
		r.verdict, r.why = refused, strings.TrimPrefix(text, "vpsctl: snapshot "+p.id+": ")
		return r, nil
	}
	if text, err := p.command(ctx, commandMax, "restore", "--resume", "--config", p.config, p.id, p.snapshot); err != nil {
		r.verdict, r.why = notRestored, strings.TrimPrefix(text, "vpsctl: restore "+p.id+": ")
		return r, nil
	}
	if text, err := p.command(ctx, commandMax, "exec", p.id, "--", "/bin/kill", "-TERM", strings.TrimSpace(string(pid))); err != nil {
		r.verdict, r.why = failed, "after the restore: "+text
		return r, nil
	}
	r.verdict, r.why = judge(ctx, out)
	return r, nil
}

// help asks a program which options it needs. One that does not know the question does its work at once, for which reason it is asked
// in an instance.
func (p *place) help(ctx context.Context, prog program, dir string) (string, error) {
	if err := p.start(ctx); err != nil {
		return "", err
	}
	text, _ := p.command(ctx, helpTime, "exec", p.id, "--", dir+"/"+prog.name, "--help") // its exit status is no help
	return text, p.end(ctx)
}

func (p *place) start(ctx context.Context) error {
	if text, err := p.command(ctx, commandMax, "start", p.id, p.config); err != nil {
		return fmt.Errorf("start: %w: %s", err, text)
	}
	return nil
}

func (p *place) end(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	// It may have ended, and wait passes on the status of the killed init.
	_, _ = p.command(ctx, commandMax, "kill", p.id, "KILL")
	_, _ = p.command(ctx, commandMax, "wait", p.id)
	if text, err := p.command(ctx, commandMax, "rm", p.id); err != nil {
		return fmt.Errorf("rm: %w: %s", err, text)
	}
	return nil
}

// judge waits for what the program says at its end.
func judge(ctx context.Context, out string) (verdict, string) {
	for deadline := time.Now().Add(verdictMax); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(out)
		switch {
		case err == nil:
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			for _, word := range strings.Fields(lines[len(lines)-1]) {
				if word == "PASS" {
					return passed, ""
				}
			}
			return failed, lastWords(out, "")
		case !errors.Is(err, fs.ErrNotExist):
			return failed, err.Error()
		case time.Now().After(deadline) || ctx.Err() != nil:
			return failed, "says nothing at its end: " + lastWords(out, "")
		}
	}
}

// lastWords is the end of what a program wrote, in one line, without times and source lines.
func lastWords(out, said string) string {
	for _, path := range []string{out, out + ".inprogress"} {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			said = string(text)
			break
		}
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	for i, l := range lines {
		// 12:34:56.789:    12: FAIL: name.c:123: what
		if _, rest, ok := strings.Cut(l, ".c:"); ok {
			_, l, _ = strings.Cut(rest, ":")
		}
		lines[i] = strings.TrimSpace(l)
	}
	text := strings.Join(lines[max(0, len(lines)-3):], "; ")
	return text[:min(len(text), 200)]
}

func copyProgram(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
