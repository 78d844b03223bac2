package instance

import (
	"context"
	"fmt"
	"time"

	"vps/cell"
	"vps/instance/registry"
	"vps/suspend"
)

// Suspend stops all tasks of an instance.
func (h *Host) Suspend(ctx context.Context, id string) error {
	return h.audit(ctx, "suspend", id, h.change("suspend", id, Running, func(i *instance) error {
		if err := suspend.Suspend(ctx, i.group, i.network()); err != nil {
			return err
		}
		i.lendPatience()
		i.mu.Lock()
		defer i.mu.Unlock()
		i.rec.Suspended = time.Now()
		return i.setLocked(Suspended, "suspend")
	}))
}

// Resume lets a suspended instance go on.
func (h *Host) Resume(ctx context.Context, id string) error {
	return h.audit(ctx, "resume", id, h.change("resume", id, Suspended, func(i *instance) error {
		if err := suspend.Resume(ctx, i.group, i.network()); err != nil {
			return err
		}
		i.takePatience()
		return i.set(Running, "resume")
	}))
}

// Abort kills a suspended instance; none of its tasks runs again.
func (h *Host) Abort(ctx context.Context, id string) error {
	return h.audit(ctx, "abort", id, h.change("abort", id, Suspended, func(i *instance) error {
		return i.end(ctx, registry.ReasonAbort, func(*cell.Cell) error { return i.vanish() })
	}))
}

// change does something to an instance that is in the given state.
func (h *Host) change(verb, id string, state State, f func(*instance) error) error {
	i, err := h.get(id)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	done, err := i.begin(verb, state)
	if err != nil {
		return err
	}
	defer done()
	if err := f(i); err != nil {
		return fmt.Errorf("%s %s: %w", verb, id, err)
	}
	return nil
}

// hold puts the instance into a passing state, and returns the one that it goes back to.
func (i *instance) hold(state State, what string) (before State, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	before = i.rec.State
	i.rec.Before = before
	return before, i.setLocked(state, what)
}

// release ends a passing state.
func (i *instance) release(after State, what string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec.Before = ""
	return i.setLocked(after, what)
}
