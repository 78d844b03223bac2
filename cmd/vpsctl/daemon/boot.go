package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"vps/api"
	"vps/instance"
	"vps/instance/home"
)

// autostart brings up the instances that are to run whenever the host does, once after the host itself has come up.
func autostart(ctx context.Context, host *instance.Host, log *slog.Logger) {
	if err := host.Boot(ctx); err != nil {
		log.Error("autostart", "error", err)
	}
}

// onPowerLoss has the daemon, when it gets SIGPWR, do with each instance what its HOST_SHUTDOWN says, and then end it
// by end: the host is about to go down. Any other signal ends the daemon alone.
func onPowerLoss(ctx context.Context, host *instance.Host, log *slog.Logger, end func()) {
	power := make(chan os.Signal, 1)
	signal.Notify(power, syscall.SIGPWR)
	go func() {
		defer signal.Stop(power)
		select {
		case <-ctx.Done():
			return
		case <-power:
		}
		log.Info("the host goes down")
		if err := host.Shutdown(ctx); err != nil {
			log.Error("shutdown", "error", err)
		}
		end()
	}()
}

// end has the daemon that runs do what is to be done when the host goes down, and waits for its end. If none runs, this
// process does it.
func (d *daemon) end(ctx context.Context) error {
	at, err := home.At(d.home)
	if err != nil {
		return err
	}
	c := api.Dial(at, d.version)
	defer c.Close()
	c.Passive = true
	switch _, pid, err := c.Version(ctx); {
	case err == nil:
		return powerLoss(pid)
	case !errors.Is(err, api.ErrUnavailable):
		return err
	}
	host, err := instance.Open(ctx, instance.Options{Home: at.Dir, Log: d.logger(), Daemon: true})
	if err != nil {
		return err
	}
	return errors.Join(host.Shutdown(ctx), host.Close())
}

// powerLoss sends SIGPWR to a daemon and waits for its end.
func powerLoss(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("daemon %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGPWR, nil, 0); err != nil {
		return fmt.Errorf("signal daemon %d: %w", pid, err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			return err
		}
	}
}
