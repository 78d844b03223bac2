package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/suspend"
)

// takeOver makes the instances of an earlier daemon ours.
func (h *Host) takeOver(ctx context.Context) error {
	if err := h.load(); err != nil {
		return err
	}
	h.mu.Lock()
	all := h.sorted()
	h.mu.Unlock()
	for _, i := range all {
		if err := i.takeOver(ctx); err != nil {
			return fmt.Errorf("take over %s: %w", i.id, err)
		}
	}
	return h.killKeepers()
}

func (i *instance) takeOver(ctx context.Context) error {
	var err error
	if i.group, err = i.host.tree.Find(i.host.key, i.id); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		i.group = nil
	}
	switch i.rec.State {
	case Dead:
		return i.clean(ctx)
	case Creating, Restoring:
		return i.undoHalf(ctx)
	case Snapshotting:
		return i.takeBack(ctx)
	}
	return i.attach(ctx)
}

// attach takes over an instance that has, or had, processes.
func (i *instance) attach(ctx context.Context) error {
	i.alive()
	if i.rec.Cell == nil || i.group == nil {
		return i.lost(ctx, cell.ErrGone)
	}
	c, err := cell.Attach(ctx, *i.rec.Cell, i.group)
	if errors.Is(err, cell.ErrGone) {
		return i.lost(ctx, err)
	}
	if err != nil {
		return err
	}
	if err := i.putBack(ctx); err != nil {
		return err
	}
	i.host.log.Info("taken over", "instance", i.id, "state", i.rec.State)
	return i.adopt(c, i.rec.State, "takeover")
}

// lost ends an instance whose keeper is gone, with the exit status that it left, if any.
func (i *instance) lost(ctx context.Context, why error) error {
	status := exitStatus(cell.Exit{}, why)
	if i.rec.Cell != nil {
		if e, err := cell.LastExit(*i.rec.Cell); err == nil {
			status = exitStatus(e, nil)
		}
	}
	if i.rec.State == Dying && i.rec.Exit != nil {
		status = *i.rec.Exit
	}
	if err := i.clean(ctx); err != nil {
		return err
	}
	i.rec.Exit = &status
	i.host.log.Warn("ended while no daemon ran", "instance", i.id, "reason", status.Reason)
	i.afterwards(status)
	return nil
}

// undoHalf removes what is half made. An instance that had run before is dead again.
func (i *instance) undoHalf(ctx context.Context) error {
	if err := i.host.killKeepersOf(i.id); err != nil {
		return err
	}
	if err := i.clean(ctx); err != nil {
		return err
	}
	i.host.log.Warn("undone", "instance", i.id, "state", i.rec.State)
	if i.rec.Runs+i.rec.Restores == 0 {
		return i.forget()
	}
	return i.set(Dead, "undo")
}

// takeBack ends a snapshot whose daemon died: the instance is as it was before.
func (i *instance) takeBack(ctx context.Context) error {
	if i.rec.Before == "" {
		i.rec.Before = Running
	}
	i.rec.State = i.rec.Before
	return i.attach(ctx)
}

// putBack undoes what an earlier daemon did to the freezer without coming to write it down.
func (i *instance) putBack(ctx context.Context) error {
	frozen, err := i.group.Frozen()
	switch {
	case err != nil:
		return err
	case i.rec.State == Running:
		return i.group.Thaw(ctx)
	case i.rec.State == Suspended && !frozen:
		return suspend.Suspend(ctx, i.group)
	}
	return nil
}

// killKeepers kills the keepers in this home's run directory that are no instance's.
func (h *Host) killKeepers() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := make(map[int]bool)
	for _, i := range h.instances {
		i.mu.Lock()
		if i.cell != nil {
			known[i.cell.Keeper.PID] = true
		}
		i.mu.Unlock()
	}
	return h.killStubs(h.dirs.run, known)
}

// killKeepersOf kills the keepers in an instance's run directory.
func (h *Host) killKeepersOf(id string) error { return h.killStubs(h.runDir(id), nil) }

// killStubs kills stubs whose working directory is in dir, but for those known.
func (h *Host) killStubs(dir string, known map[int]bool) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || known[pid] {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		exe, err := os.Readlink(filepath.Join(proc, "exe"))
		if err != nil || !strings.HasPrefix(exe, "/memfd:vps-stub") {
			continue
		}
		cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
		if err != nil || cwd != dir && filepath.Dir(cwd) != dir {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !gone(err) {
			return fmt.Errorf("kill keeper %d: %w", pid, err)
		}
	}
	return nil
}
