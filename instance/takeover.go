package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"vps/cell"
	"vps/ifvps"
	"vps/instance/registry"
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
	return errors.Join(h.endStrangers(ctx), h.lan.Settle())
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
		return errors.Join(i.clean(ctx), i.adoptParked())
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
	i.refill(ctx, c) // a task that waits for memory cannot be stopped
	if err := i.adoptNetwork(c.Init.PID); err != nil {
		return err
	}
	if len(i.rec.Moved) > 0 {
		if i.space, err = ifvps.OpenNamespace(c.Init.PID); err != nil {
			return err
		}
	}
	if err := i.putBack(ctx); err != nil {
		return err
	}
	i.outlived()
	i.host.log.Info("taken over", "instance", i.id, "state", i.rec.State)
	return i.adopt(c, i.rec.State, "takeover")
}

// lost ends an instance whose keeper is gone, with the exit status that it left, if any.
func (i *instance) lost(ctx context.Context, why error) error {
	status := registry.Ended(cell.Exit{}, why)
	if i.rec.Cell != nil {
		if e, err := cell.LastExit(*i.rec.Cell); err == nil {
			status = registry.Ended(e, nil)
		}
	}
	if i.rec.State == Dying && i.rec.Exit != nil {
		status = *i.rec.Exit
	}
	if i.wasSaved() {
		status.Reason = registry.ReasonSaved
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
	if err := i.clean(ctx); err != nil {
		return err
	}
	i.host.log.Warn("undone", "instance", i.id, "state", i.rec.State)
	if i.rec.Starts+i.rec.Restores == 0 {
		return i.forget()
	}
	return i.set(Dead, "undo")
}

// takeBack ends a snapshot whose daemon died: the instance is as it was before.
func (i *instance) takeBack(ctx context.Context) error {
	if i.rec.Before == "" {
		i.rec.Before = Running
	}
	i.rec.Enter(i.rec.Before)
	return i.attach(ctx)
}

// putBack undoes what an earlier daemon did to the freezer without coming to write it down.
func (i *instance) putBack(ctx context.Context) error {
	frozen, err := i.group.Frozen()
	switch {
	case err != nil:
		return err
	case i.rec.State == Running:
		err = suspend.Resume(ctx, i.group, i.network())
		i.takePatience()
		return err
	case i.rec.State == Suspended && !frozen:
		return suspend.Suspend(ctx, i.group, i.network())
	}
	return nil
}

// endStrangers ends what runs in control groups of this home that are no instance's: a daemon was killed between making and
// registering it.
func (h *Host) endStrangers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	ids, err := h.tree.List(h.key)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := h.get(id); err == nil {
			continue
		}
		group, err := h.tree.Find(h.key, id)
		if err == nil {
			err = errors.Join(group.KillAll(), group.Remove(ctx))
		}
		if err != nil {
			return fmt.Errorf("end what an earlier daemon left of %s: %w", id, err)
		}
	}
	return nil
}
