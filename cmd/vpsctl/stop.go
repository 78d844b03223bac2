package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vps/api"
	"vps/cmd/vpsctl/cli"
	"vps/instance"
)

type client = *api.Client

// simple makes a verb that calls f for each of its targets.
func (a *app) simple(t *targets, cmd *cobra.Command, f func(c client, ctx context.Context, id string) error) *cobra.Command {
	t.flag(cmd)
	cmd.Args = t.args
	cmd.ValidArgsFunction = a.complete(many, t.states...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cli.Context(cmd)
		c, err := a.dial()
		if err != nil {
			return err
		}
		return t.run(ctx, c, args, func(id string) error { return f(c, ctx, id) })
	}
	return cmd
}

func (a *app) stopCmd() *cobra.Command {
	return a.ending("stop", "Stop an instance", "stop asks init to end its system",
		func(c client, ctx context.Context, id string, timeout time.Duration) error {
			return c.Stop(ctx, id, timeout)
		})
}

func (a *app) restartCmd() *cobra.Command {
	return a.ending("restart", "Stop an instance and start it again", "restart asks init to end its system, and starts it again",
		func(c client, ctx context.Context, id string, timeout time.Duration) error {
			return c.Restart(ctx, id, timeout)
		})
}

func (a *app) ending(verb, short, long string, f func(client, context.Context, string, time.Duration) error) *cobra.Command {
	var timeout time.Duration
	cmd := a.simple(&targets{verb: verb, states: []instance.State{instance.Running}}, &cobra.Command{
		Use:   verb + " ID...",
		Short: short,
		Long: long + ", by the signal that this init knows for it (STOP_SIGNAL of vps.conf(5)).\n" +
			"What is left after the timeout is killed.",
		Example: fmt.Sprintf("  vpsctl %[1]s web\n  vpsctl %[1]s --timeout 5 web db\n  vpsctl %[1]s --all", verb),
	}, func(c client, ctx context.Context, id string) error { return f(c, ctx, id, timeout) })
	cmd.Flags().Var((*seconds)(&timeout), "timeout", "`time` from the signal to SIGKILL: seconds, or as 1m30s (default STOP_TIMEOUT of vps.conf(5))")
	return cmd
}

// seconds is a flag's time: a number of seconds, or with units.
type seconds time.Duration

func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, e := strconv.ParseUint(text, 10, 31); e == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err == nil && d <= 0 {
		err = errors.New("it has to be more than 0")
	}
	*s = seconds(d)
	return err
}

func (s *seconds) String() string { return "" }

func (s *seconds) Type() string { return "time" }

func (a *app) killCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "kill ID SIGNAL",
		Short:   "Send a signal to an instance's init",
		Long:    "kill sends a signal, by name or number, to pid 1 of an instance.",
		Example: "  vpsctl kill web HUP\n  vpsctl kill web SIGRTMIN+3",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return signalNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return a.complete(1, instance.Running)(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			signal, err := parseSignal(args[1])
			if err != nil {
				return err
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			return cli.Fail(ctx, "kill", id, c.Kill(ctx, id, signal))
		},
	}
}

// Real-time signals as the C library numbers them, signal(7).
const (
	sigrtmin = 34
	sigrtmax = 64
)

// parseSignal reads a signal: its number, or its name with or without SIG, or SIGRTMIN+N or SIGRTMAX-N.
func parseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= sigrtmax {
		return n, nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	for prefix, base := range map[string]int{"SIGRTMIN": sigrtmin, "SIGRTMAX": sigrtmax} {
		offset, ok := strings.CutPrefix(name, prefix)
		n, err := strconv.Atoi("0" + offset)
		if offset != "" {
			n, err = strconv.Atoi(offset)
		}
		if ok && err == nil && base+n >= sigrtmin && base+n <= sigrtmax {
			return base + n, nil
		}
	}
	return 0, fmt.Errorf("%s is no signal; 'kill -l' lists them", s)
}

func signalNames() []string {
	var names []string
	for n := syscall.Signal(1); n < sigrtmin; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return names
}

func (a *app) waitCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:               "wait ID",
		Short:             "Wait until an instance is dead",
		Long:              "wait waits until an instance is dead, prints how its init ended, and exits with init's status: 128 + N if signal N\nended it.",
		Example:           "  vpsctl wait web\n  vpsctl wait --json web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			status, err := c.Wait(ctx, id)
			if err != nil {
				return cli.Fail(ctx, "wait", id, err)
			}
			if a.JSON {
				err = a.Document("exit_status", status)
			} else {
				_, err = fmt.Fprintln(a.Stdout, cli.Exit(&status))
			}
			if err == nil && status.Code != 0 {
				err = cli.StatusError(status.Code)
			}
			return err
		},
	})
}
