package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/instance/inside"
	"vps/instance/registry"
	"vps/object/tcp"
)

func gone(err error) bool { return errors.Is(err, unix.ESRCH) }

// Stop ends an instance: init gets its own signal for power-off, and what is left after the timeout (0: the configuration's) is
// killed. An instance that is dead already stays so, whatever its restart policy.
func (h *Host) Stop(ctx context.Context, id string, timeout time.Duration) error {
	return h.audit(ctx, "stop", id, h.halt(ctx, "stop", id, timeout, nil))
}

// Restart stops an instance and starts it again, from the same configuration as [Host.Start] with none.
func (h *Host) Restart(ctx context.Context, id string, timeout time.Duration) error {
	return h.audit(ctx, verbRestart, id, h.halt(ctx, verbRestart, id, timeout, func(i *instance) error {
		cfg, err := h.configure(i, nil)
		if err == nil {
			err = i.create(ctx, cfg, starting)
		}
		if err == nil {
			err = i.run(ctx, "restart")
		}
		return err
	}))
}

func (h *Host) halt(ctx context.Context, verb, id string, timeout time.Duration, then func(*instance) error) error {
	i, err := h.get(id)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	done, err := i.begin(verb, Running, Created, Dead, Dying)
	if err != nil {
		return err
	}
	defer done()
	i.cancelRetry()
	if i.rec.State == Dead && then == nil {
		if err := i.releaseParked(); err != nil {
			return fmt.Errorf("%s %s: %w", verb, id, err)
		}
	}
	err = i.end(ctx, registry.ReasonStop, func(c *cell.Cell) error {
		if timeout <= 0 {
			timeout = i.cfg.StopTimeout
		}
		return i.powerOff(ctx, c, timeout)
	})
	if err == nil && then != nil {
		err = then(i)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, id, err)
	}
	return nil
}

// end lets how end the instance's processes and waits until nothing is left. The caller's operation has the instance.
func (i *instance) end(ctx context.Context, reason string, how func(*cell.Cell) error) error {
	i.mu.Lock()
	c, over := i.cell, i.over
	i.ending = reason
	i.idle.Broadcast() // the supervisor need not wait for us
	i.mu.Unlock()
	if c != nil {
		if err := how(c); err != nil {
			return err
		}
	}
	if over == nil {
		return nil
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// powerOff asks init to end, then kills.
func (i *instance) powerOff(ctx context.Context, c *cell.Cell, timeout time.Duration) error {
	if !c.Parked() {
		ended, err := inside.PowerOff(ctx, c.Process(), i.cfg.StopSignal, timeout)
		if err != nil || ended {
			return err
		}
	}
	return i.killAll()
}

// killAll kills every process of the instance, frozen ones too.
func (i *instance) killAll() error {
	i.mu.Lock()
	group := i.group
	i.mu.Unlock()
	if group == nil {
		return nil
	}
	return group.Kill()
}

// vanish kills a suspended instance without a word to the peers of its TCP connections, which live on elsewhere.
func (i *instance) vanish() error {
	pids, err := i.group.Procs()
	if err == nil {
		err = tcp.Silence(pids)
	}
	if err != nil { // some may hear of it; the instance ends all the same
		i.host.log.Warn("silence connections", "instance", i.id, "error", err)
	}
	return i.killAll()
}

// Kill sends a signal to the instance's init.
func (h *Host) Kill(ctx context.Context, id string, signal int) error {
	return h.audit(ctx, fmt.Sprintf("kill %d", signal), id, h.kill(id, signal))
}

func (h *Host) kill(id string, signal int) error {
	i, err := h.get(id)
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if signal < 0 || signal > 64 {
		return fmt.Errorf("kill %s: signal %d: %w", id, signal, ErrInvalid)
	}
	c, err := i.current("kill", Running)
	if err != nil {
		return err
	}
	if err := c.Process().Signal(unix.Signal(signal)); err != nil {
		return fmt.Errorf("kill %s: %w", id, err)
	}
	return nil
}

// Remove forgets a dead instance: its record, its console's history and its id range. Its files stay.
func (h *Host) Remove(ctx context.Context, id string) error {
	return h.audit(ctx, "rm", id, h.remove(id))
}

func (h *Host) remove(id string) error {
	i, err := h.get(id)
	if err != nil {
		return fmt.Errorf("rm: %w", err)
	}
	done, err := i.begin("rm", Dead)
	if err != nil {
		return err
	}
	defer done()
	i.cancelRetry()
	if err := i.releaseParked(); err != nil {
		return fmt.Errorf("rm %s: %w", id, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec.State = ""
	if err := i.forget(); err != nil {
		return fmt.Errorf("rm %s: %w", id, err)
	}
	h.events.Send(Event{Time: time.Now(), ID: id, State: Dead, What: "rm"})
	return nil
}

// Wait waits until the instance is dead and no restart is due, and tells how it ended.
func (h *Host) Wait(ctx context.Context, id string) (ExitStatus, error) {
	i, err := h.get(id)
	if err != nil {
		return ExitStatus{}, fmt.Errorf("wait: %w", err)
	}
	i.mu.Lock()
	dead := i.dead
	i.mu.Unlock()
	select {
	case <-dead:
	case <-ctx.Done():
		return ExitStatus{}, context.Cause(ctx)
	case <-h.ctx.Done():
		return ExitStatus{}, os.ErrClosed
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.rec.Exit == nil {
		return ExitStatus{}, fmt.Errorf("wait %s: it never ran", id)
	}
	return *i.rec.Exit, nil
}
