package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"vps/cell"
	"vps/config"
	"vps/instance/registry"
)

// startFresh refuses to start an instance anew whose memory was saved.
func (i *instance) startFresh() error {
	if s := i.rec.Saved; s != nil {
		return fmt.Errorf("%w: its memory was saved when the host went down; %s", ErrState, s.Advice(i.id))
	}
	return nil
}

// Shutdown does with each instance what its configuration says for the shutdown of the host, in the reverse of START_ORDER: it
// stops it, or saves its memory in the host's store for [Host.Autostart]. One that cannot be saved is stopped. One that is
// suspended cannot be stopped, and is saved.
func (h *Host) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	all := h.sorted()
	h.mu.Unlock()
	slices.SortStableFunc(all, func(a, b *instance) int { return b.startOrder() - a.startOrder() })
	var errs []error
	for _, i := range all {
		i.mu.Lock()
		state, policy := i.rec.State, i.cfg.HostShutdown
		i.mu.Unlock()
		save := state == Suspended || state == Running && policy != config.ShutdownStop
		var err error
		if save {
			err = h.audit(ctx, "save", i.id, h.save(ctx, i))
		}
		if state == Running && (!save || err != nil) {
			err = errors.Join(err, h.Stop(ctx, i.id, 0))
		}
		errs = append(errs, err)
	}
	if err := os.Remove(h.home.Booted()); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (i *instance) startOrder() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cfg.StartOrder
}

// save ends an instance with a snapshot of it in the store. If that fails it is as it was found.
func (h *Host) save(ctx context.Context, i *instance) (err error) {
	done, err := i.begin("save", Running, Suspended)
	if err != nil {
		return err
	}
	defer done()
	f, err := h.home.Snapshots().Create(i.id)
	if err != nil {
		return fmt.Errorf("save %s: %w", i.id, err)
	}
	before := i.rec.State
	// Noted first: whenever the host dies from now on, there is either the note of a whole file, or no file.
	mark := &registry.Saved{File: f.Path(), Resume: before == Running, Keep: i.cfg.HostShutdown == config.ShutdownSnapshot}
	if err = i.note(mark); err == nil {
		_, err = i.snapshot(ctx, f.File, SnapshotOptions{Suspend: true}, nil)
	}
	if err == nil {
		err = f.Commit()
	}
	err = errors.Join(err, f.Discard())
	if err != nil {
		return fmt.Errorf("save %s: %w", i.id, errors.Join(err, i.unsave(before)))
	}
	return i.end(ctx, registry.ReasonSaved, func(*cell.Cell) error { return i.vanish() })
}

func (i *instance) note(s *registry.Saved) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec.Saved = s
	return i.save()
}

// unsave lets an instance that could not be saved go on.
func (i *instance) unsave(before State) error {
	file := i.rec.Saved.File
	err := i.note(nil)
	if rerr := os.Remove(file); !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if before == Running && i.rec.State == Suspended {
		err = errors.Join(err, i.back(Running))
	}
	return err
}

// outlived forgets what was noted of an instance that is there still: the host did not go down, or its daemon was killed before
// all was saved.
func (i *instance) outlived() {
	if s := i.rec.Saved; s != nil {
		i.host.log.Warn("it was to be saved, but the host did not go down", "instance", i.id, "state", i.rec.State, "file", s.File)
		i.rec.Saved = nil
	}
}

// wasSaved tells whether the memory of an instance that has gone is in a file.
func (i *instance) wasSaved() bool {
	if i.rec.Saved == nil {
		return false
	}
	if _, err := os.Stat(i.rec.Saved.File); err != nil {
		i.rec.Saved = nil
		return false
	}
	return true
}
