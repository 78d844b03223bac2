package instance

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/cell/reaper"
	"vps/config"
)

// A start by the restart policy waits, each time twice as long; an instance that ran for restartCalm begins anew.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 30 * time.Second
	restartCalm  = time.Minute
)

// supervise waits for the end of a cell's init, cleans up, and starts the instance again where it asked for that or its
// policy does. over is closed when that is done.
func (i *instance) supervise(c *cell.Cell, over chan struct{}) {
	defer close(over)
	exit, err := c.Process().Wait(context.Background())
	if errors.Is(err, os.ErrClosed) {
		return // the host let go of it
	}
	status := exitStatus(exit, err)
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
	err = i.setLocked(Dying, reasonExit)
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
	now := status.Reason == reasonReboot
	delay, again := i.policy(status)
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
		i.verb = reasonReboot
	default:
		i.retry = time.AfterFunc(delay, i.restart)
	}
	i.mu.Unlock()
	if now && !busy {
		i.again(reasonReboot)
		i.done()
	}
}

// policy tells whether and when the configuration wants the instance started again. The caller holds i.mu.
func (i *instance) policy(status ExitStatus) (delay time.Duration, again bool) {
	switch status.Reason {
	case reasonStop, reasonAbort, reasonSaved, reasonFailed, reasonLost:
		return 0, false
	}
	switch i.cfg.Restart.Policy {
	case config.RestartAlways:
	case config.RestartOnFailure:
		if status.Reason == reasonPoweroff || status.Code == 0 {
			return 0, false
		}
	default:
		return 0, false
	}
	if time.Since(i.rec.Started) > restartCalm {
		i.rec.Restarts = 0
	}
	if most := i.cfg.Restart.Max; most > 0 && i.rec.Restarts >= most {
		return 0, false
	}
	delay = min(restartFirst<<min(i.rec.Restarts, 20), restartMost)
	i.rec.Restarts++
	return delay, true
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

// exitStatus interprets how an init ended: reboot(2) in a pid namespace ends it with SIGHUP to be started again, and with
// SIGINT for halt and power-off (pid_namespaces(7)).
func exitStatus(e cell.Exit, err error) ExitStatus {
	s := ExitStatus{Code: e.ExitCode(), Reason: reasonExit, Time: time.Now()}
	switch {
	case err != nil:
		s.Code, s.Reason = 255, reasonLost
	case e.Code == reaper.Killed && unix.Signal(e.Status) == unix.SIGHUP:
		s.Code, s.Reason = 0, reasonReboot
	case e.Code == reaper.Killed && unix.Signal(e.Status) == unix.SIGINT:
		s.Code, s.Reason = 0, reasonPoweroff
	case e.Code != reaper.Exited:
		s.Reason, s.Signal = reasonSignal, config.SignalName(unix.Signal(e.Status))
	}
	return s
}
