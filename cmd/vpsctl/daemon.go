package main

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
)

// umask is what instances inherit, whoever started the daemon.
const umask = 0o022

// daemonMain is the program vpsd.
func daemonMain(args []string) int {
	cmd := daemonCmd()
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "vpsd: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// daemon is the options of vpsd.
type daemon struct {
	home     string
	launched bool // by a client
	debug    bool
	boot     bool     // bring up what runs whenever the host does
	shutdown bool     // the host goes down: no daemon, but the end of the one that runs
	ready    *os.File // for the client that waits; nil if none does
}

// daemonCmd is the command vpsd, and vpsctl daemon.
func daemonCmd() *cobra.Command {
	var d daemon
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
	home, err := api.HomeAt(d.home)
	if err != nil {
		return err
	}
	host, err := instance.Open(ctx, instance.Options{Home: home.Dir, Log: log, Daemon: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	onPowerLoss(ctx, host, log, stop)
	if d.boot {
		go autostart(ctx, host, log)
	}
	return d.serve(ctx, home, api.Local(host), log)
}

func (d *daemon) serve(ctx context.Context, home api.Home, host api.Backend, log *slog.Logger) error {
	l, err := api.Listen(home.Run)
	if err != nil {
		return err
	}
	log.Info("vpsd listens", "version", version, "run", home.Run)
	if d.ready != nil {
		if err := api.Ready(d.ready); err != nil {
			log.Warn("the client that started this daemon has gone", "err", err)
		}
		d.ready = nil
	}
	server := &api.Server{Host: host, Version: version, Log: log}
	defer log.Info("vpsd ends")
	return server.Serve(ctx, l)
}
