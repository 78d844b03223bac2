package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"vps/api"
	"vps/dump/atomicfile"
	"vps/instance"
)

// autostart starts the instances that are to run whenever the host does.
func autostart(ctx context.Context, host *instance.Host, log *slog.Logger) {
	if err := host.Autostart(ctx); err != nil {
		log.Error("autostart", "error", err)
	}
}

// onPowerLoss has the daemon, when it gets SIGPWR, do with each instance what its HOST_SHUTDOWN says, and then end it
// by end: the host is about to go down. Any other signal ends the daemon alone.
func onPowerLoss(ctx context.Context, host *instance.Host, home api.Home, log *slog.Logger, end func()) {
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
		err := host.Shutdown(ctx, func(ctx context.Context, id string) error { return saveInstance(ctx, host, home, id) })
		if err != nil {
			log.Error("shutdown", "error", err)
		}
		end()
	}()
}

// saveInstance ends an instance with a snapshot of it in the host's store.
func saveInstance(ctx context.Context, host *instance.Host, home api.Home, id string) (err error) {
	path, err := storePath(home, id)
	if err != nil {
		return err
	}
	f, err := atomicfile.Create(path)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := host.Snapshot(ctx, id, f, instance.SnapshotOptions{Suspend: true}, nil); err != nil {
		return err
	}
	if err := f.Commit(); err != nil {
		return errors.Join(err, host.Resume(ctx, id))
	}
	return host.Abort(ctx, id)
}
