// Package daemon is vpsd.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"vps/api"
	"vps/instance"
	"vps/instance/home"
)

// umask is what instances inherit, whoever started the daemon.
const umask = 0o022

// daemon is the options of vpsd.
type daemon struct {
	home     string
	launched bool // by a client
	debug    bool
	boot     bool     // bring up what runs whenever the host does
	shutdown bool     // the host goes down: no daemon, but the end of the one that runs
	ready    *os.File // for the client that waits; nil if none does
	version  string
}

// Command is vpsd, and vpsctl daemon, of a version.
func Command(version string) *cobra.Command {
	d := daemon{version: version}
	cmd := &cobra.Command{
		Use:           "daemon",
		Short:         "Keep the instances of the host",
		Long:          "vpsd keeps the instances of the host and answers vpsctl. When it ends, by whatever signal, instances go on.",
		Args:          cobra.NoArgs,
		Hidden:        true,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.launched {
				d.ready = os.NewFile(api.ReadyFD, "ready")
			}
			run := d.run
			if d.shutdown {
				run = d.end
			}
			err := run(cmd.Context())
			if d.ready != nil && err != nil {
				fmt.Fprint(d.ready, err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&d.home, "home", os.Getenv("VPS_HOME"), "the host's `directory` (default $VPS_HOME)")
	cmd.Flags().BoolVar(&d.launched, "launched", false, "started by a client")
	cmd.Flags().BoolVar(&d.boot, "autostart", false, "bring up, once after the host has come up, the instances with AUTOSTART and those that were saved")
	cmd.Flags().BoolVar(&d.shutdown, "shutdown", false, "do with each instance what HOST_SHUTDOWN says, and end the daemon that runs")
	cmd.MarkFlagsMutuallyExclusive("autostart", "shutdown")
	cmd.Flags().BoolVar(&d.debug, "debug", false, "log every call")
	cmd.Flags().Lookup("launched").Hidden = true
	return cmd
}

func (d *daemon) logger() *slog.Logger {
	level := slog.LevelInfo
	if d.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	return log
}

// run keeps the host until it is told to end.
func (d *daemon) run(ctx context.Context) (err error) {
	syscall.Umask(umask)
	log := d.logger()
	// Caught, a hangup is of no effect here, and of its usual one in what the daemon starts.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	at, err := home.At(d.home)
	if err != nil {
		return err
	}
	host, err := instance.Open(ctx, instance.Options{Home: at.Dir, Log: log, Daemon: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	onPowerLoss(ctx, host, log, stop)
	if d.boot {
		go autostart(ctx, host, log)
	}
	return d.serve(ctx, at, api.Local(host), log)
}

func (d *daemon) serve(ctx context.Context, at home.Home, host api.Backend, log *slog.Logger) error {
	ready := d.ready
	d.ready = nil
	return Serve(ctx, at, host, d.version, log, ready)
}

// Serve answers for a host until ctx ends. ready is nil, or for the client that waits until the daemon listens, which is told so.
func Serve(ctx context.Context, at home.Home, host api.Backend, version string, log *slog.Logger, ready *os.File) error {
	l, err := api.Listen(at.Run)
	if err != nil {
		if ready != nil {
			fmt.Fprint(ready, err)
		}
		return err
	}
	log.Info("vpsd listens", "version", version, "run", at.Run)
	if ready != nil {
		if err := api.Ready(ready); err != nil {
			log.Warn("the client that started this daemon has gone", "err", err)
		}
	}
	server := &api.Server{Host: host, Version: version, Log: log}
	defer log.Info("vpsd ends")
	return server.Serve(ctx, l)
}
