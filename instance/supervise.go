package instance

import (
	"context"
	"errors"
	"os"
	"time"

	"vps/cell"
	"vps/instance/registry"
)

// supervise waits for the end of a cell's init, cleans up, and starts the instance again where it asked for that or its
// policy does. over is closed when that is done.
func (i *instance) supervise(c *cell.Cell, over chan struct{}) {
	defer close(over)
	exit, err := c.Process().Wait(context.Background())
	if errors.Is(err, os.ErrClosed) {
		return // the host let go of it
	}
	status := registry.Ended(exit, err)
	if !i.claim() {
		return
	}
	switch {
	case i.ending != "":
		status.Reason = i.ending
	case i.rec.State == Dying && i.rec.Exit != nil:
		status = *i.rec.Exit // an earlier daemon died while it cleaned up
	}
	i.rec.Exit = &status
	err = i.setLocked(Dying, registry.ReasonExit)
	i.mu.Unlock()
	err = errors.Join(err, i.clean(context.Background()))
	if err != nil {
		i.host.log.Error("clean up", "instance", i.id, "error", err)
	}
	i.afterwards(status)
}

// claim waits until no operation is under way but one that waits for the end itself. If it returns true, i.mu is locked;
// false, if the host let go of the instance.
func (i *instance) claim() bool {
	i.mu.Lock()
	for i.verb != "" && i.ending == "" && i.verb != verbClose {
		i.idle.Wait()
	}
	if i.verb == verbClose {
		i.mu.Unlock()
		return false
	}
	return true
}

// afterwards decides what becomes of an instance whose processes are gone.
func (i *instance) afterwards(status ExitStatus) {
	i.mu.Lock()
	now := status.Reason == registry.ReasonReboot
	delay, again := i.rec.Again(status, i.cfg.Restart)
	if err := i.setLocked(Dead, status.Reason); err != nil {
		i.host.log.Error("write record", "instance", i.id, "error", err)
	}
	busy := i.verb != ""
	switch {
	case i.verb == verbRestart: // it goes on
	case busy || !now && !again:
		i.ended()
	case now:
		i.rec.Restarts = 0
		i.verb = registry.ReasonReboot
	default:
		i.retry = time.AfterFunc(delay, i.restart)
	}
	i.mu.Unlock()
	if now && !busy {
		i.again(registry.ReasonReboot)
		i.done()
	}
}

// restart is a start by the policy.
func (i *instance) restart() {
	i.mu.Lock()
	due := i.retry != nil && i.verb == "" && i.rec.State == Dead && i.host.ctx.Err() == nil
	if due {
		i.retry = nil
		i.verb = verbRestart
	}
	i.mu.Unlock()
	if due {
		i.again(verbRestart)
		i.done()
	}
}

// again starts the instance as it was. The caller's operation has it.
func (i *instance) again(what string) {
	ctx := i.host.ctx
	err := i.create(ctx, i.cfg, starting)
	if err == nil {
		err = i.run(ctx, what)
	}
	if err != nil {
		i.host.log.Error("start again", "instance", i.id, "why", what, "error", err)
	}
}

// cancelRetry gives a start by the policy up.
func (i *instance) cancelRetry() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.retry != nil {
		i.retry.Stop()
		i.retry = nil
		i.ended()
	}
}
