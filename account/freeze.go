package account

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Freeze stops every task of the instance and waits until all are stopped. A
// task in an uninterruptible sleep, or stopped by a tracer, can hold that up:
// if ctx ends first, the instance is thawed again and ctx's error returned.
// Freezing makes some system calls return EINTR (epoll_wait, for one).
func (g *Group) Freeze(ctx context.Context) error {
	if err := write(g.dir(), "cgroup.freeze", "1"); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	if err := g.await(ctx, "frozen 1"); err != nil {
		return errors.Join(fmt.Errorf("freeze: %w", err), write(g.dir(), "cgroup.freeze", "0"))
	}
	return nil
}

// Thaw undoes Freeze and waits until the kernel says so, or ctx ends. An
// instance that is not frozen stays as it is.
func (g *Group) Thaw(ctx context.Context) error {
	if err := write(g.dir(), "cgroup.freeze", "0"); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	if err := g.await(ctx, "frozen 0"); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	return nil
}

// Frozen reports whether every task of the instance is stopped by a freeze.
func (g *Group) Frozen() (bool, error) {
	events, err := keyed(g.dir(), "cgroup.events")
	return events["frozen"] == 1, err
}

// Kill sends SIGKILL to every process of the instance, frozen ones too, and
// to those that they fork meanwhile. It does not wait: see WaitEmpty.
func (g *Group) Kill() error { return write(g.dir(), "cgroup.kill", "1") }

// KillAll is Kill for the keeper too, and for what has not yet come out of its
// group. It is no error if the groups are gone.
func (g *Group) KillAll() error {
	if err := write(g.top(), "cgroup.kill", "1"); err != nil && !gone(err) {
		return err
	}
	return nil
}

// Empty reports whether no live process is left; zombies do not count.
func (g *Group) Empty() (bool, error) {
	events, err := keyed(g.dir(), "cgroup.events")
	return events["populated"] == 0, err
}

// WaitEmpty waits until no live process is left or ctx ends.
func (g *Group) WaitEmpty(ctx context.Context) error {
	if err := g.await(ctx, "populated 0"); err != nil {
		return fmt.Errorf("wait for the last process: %w", err)
	}
	return nil
}

// await blocks until cgroup.events has the line. The kernel announces a change
// to who polls the file for POLLPRI after having read it.
func (g *Group) await(ctx context.Context, line string) error {
	f, err := os.Open(filepath.Join(g.dir(), "cgroup.events"))
	if err != nil {
		return err
	}
	defer f.Close()

	cancelled, cancel, err := os.Pipe()
	if err != nil {
		return err
	}
	defer cancelled.Close()
	defer cancel.Close()
	stop := context.AfterFunc(ctx, func() { cancel.Close() })
	defer stop()

	var events [256]byte
	for {
		n, err := unix.Pread(int(f.Fd()), events[:], 0)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name(), err)
		}
		for l := range strings.Lines(string(events[:n])) {
			if strings.TrimSuffix(l, "\n") == line {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: waiting for %q: %w", f.Name(), line, context.Cause(ctx))
		}
		fds := []unix.PollFd{
			{Fd: int32(f.Fd()), Events: unix.POLLPRI},
			{Fd: int32(cancelled.Fd())},
		}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll %s: %w", f.Name(), err)
		}
	}
}
