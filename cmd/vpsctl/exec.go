package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"vps/api"
	"vps/cmd/vpsctl/cli"
	"vps/cmd/vpsctl/terminal"
	"vps/instance"
)

const execLong = "The exit status is the command's, 128 + N if signal N ended it; 127 if there is no such command, 126 if it cannot be\n" +
	"executed, 125 if anything else failed."

// execFlags gives a verb the options of a command that is to run.
func execFlags(cmd *cobra.Command, spec *instance.ExecSpec) {
	cmd.Flags().StringVarP(&spec.User, "user", "u", "", "run as `USER[:GROUP]` of the instance, by name or number")
	cmd.Flags().StringVarP(&spec.Dir, "workdir", "w", "", "run in `DIR` (default: the user's home)")
	cmd.Flags().StringArrayVarP(&spec.Env, "env", "e", nil, "set `NAME=VALUE` in the environment; NAME alone takes vpsctl's own value")
}

func (a *app) execCmd() *cobra.Command {
	var spec instance.ExecSpec
	cmd := &cobra.Command{
		Use:   "exec ID [-i] [-t] [-d] [-u USER] [-w DIR] [-e NAME=VALUE] -- COMMAND [ARG...]",
		Short: "Run a command in an instance",
		Long: "exec runs a command in a running instance, as root of it unless another user is named.\n" + execLong + "\n" +
			"At a terminal, with -it, Enter # . lets go of the command, which is then hung up.",
		Example: "  vpsctl exec web -- uptime\n" +
			"  vpsctl exec -it -u www web -- /bin/sh\n" +
			"  tar c . | vpsctl exec -i web -w /srv -- tar x",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.complete(1, instance.Running),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); dash > 1 {
				return fmt.Errorf("exec: one ID before the --, not %s", strings.Join(args[:dash], " "))
			}
			return a.exec(cmd, "exec", args[0], args[1:], spec)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w (options of the command come after a --)", err)
	})
	execFlags(cmd, &spec)
	cmd.Flags().BoolVarP(&spec.Stdin, "interactive", "i", false, "pass standard input to the command")
	cmd.Flags().BoolVarP(&spec.TTY, "tty", "t", false, "give the command a terminal")
	cmd.Flags().BoolVarP(&spec.Detach, "detach", "d", false, "do not wait for it: print its pid inside")
	cmd.MarkFlagsMutuallyExclusive("detach", "interactive")
	cmd.MarkFlagsMutuallyExclusive("detach", "tty")
	return cmd
}

func (a *app) execinCmd() *cobra.Command {
	var spec instance.ExecSpec
	return a.execAlias(&spec, &cobra.Command{
		Use:     "execin [-u USER] [-w DIR] [-e NAME=VALUE] ID COMMAND [ARG...]",
		Short:   "Run a command in an instance and do not wait: exec -d",
		Long:    "execin is exec -d: it starts a command in an instance, prints its pid inside and does not wait for it.",
		Example: "  vpsctl execin web /usr/sbin/sshd",
	}, func() { spec.Detach = true })
}

func (a *app) execwtCmd() *cobra.Command {
	var spec instance.ExecSpec
	return a.execAlias(&spec, &cobra.Command{
		Use:     "execwt [-u USER] [-w DIR] [-e NAME=VALUE] ID COMMAND [ARG...]",
		Short:   "Run a command in an instance with a terminal: exec -it",
		Long:    "execwt is exec -it: it runs a command in an instance with a terminal. Enter # . lets go of it.\n" + execLong,
		Example: "  vpsctl execwt web top",
	}, func() { spec.Stdin, spec.TTY = true, true })
}

// execAlias makes a form of exec whose command needs no -- before it.
func (a *app) execAlias(spec *instance.ExecSpec, cmd *cobra.Command, prepare func()) *cobra.Command {
	cmd.Args = cobra.MinimumNArgs(2)
	cmd.ValidArgsFunction = a.complete(1, instance.Running)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		prepare()
		command := args[1:]
		if command[0] == "--" { // who is used to exec
			command = command[1:]
		}
		if len(command) == 0 {
			return fmt.Errorf("%s %s: which command?", cmd.Name(), args[0])
		}
		return a.exec(cmd, cmd.Name(), args[0], command, *spec)
	}
	execFlags(cmd, spec)
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (a *app) shellCmd() *cobra.Command {
	spec := instance.ExecSpec{Stdin: true}
	cmd := &cobra.Command{
		Use:               "shell ID",
		Short:             "Run a shell in an instance",
		Long:              "shell runs a login shell in an instance: bash where there is one, else sh. Enter # . lets go of it.\n" + execLong,
		Example:           "  vpsctl shell web\n  vpsctl shell -u www web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1, instance.Running),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.TTY = terminal.Is(a.Stdin)
			return a.exec(cmd, "shell", args[0], []string{"/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l"}, spec)
		},
	}
	execFlags(cmd, &spec)
	return cmd
}

// exec runs a command to its end, unless it is detached.
func (a *app) exec(cmd *cobra.Command, verb, id string, args []string, spec instance.ExecSpec) error {
	spec.Args = args
	spec.Env = environment(spec.Env, spec.TTY)
	if spec.TTY {
		if spec.Rows, spec.Cols = terminal.Size(a.Stdin); spec.Rows == 0 {
			spec.Rows, spec.Cols = 24, 80
		}
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 8) // from now on: those that come before there is a command wait for it
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	x, err := c.Exec(cmd.Context(), id, spec)
	if err != nil {
		return cli.Fail(cmd.Context(), verb, id, err)
	}
	defer x.Close()
	go forward(signals, x)
	if spec.Detach {
		_, err = fmt.Fprintln(a.Stdout, x.PID)
		return err
	}
	status, err := a.attach(cmd.Context(), x, spec)
	switch {
	case errors.Is(err, terminal.ErrDetached):
		fmt.Fprintf(a.Stderr, "\r\n[detached from %s]\r\n", id)
		return nil
	case err != nil:
		return cli.Fail(cmd.Context(), verb, id, err)
	case status != 0:
		return cli.StatusError(status)
	}
	return nil
}

// environment is what was asked for with -e, and at a terminal which one it is.
func environment(asked []string, tty bool) []string {
	var env []string
	if name := os.Getenv("TERM"); tty && name != "" {
		env = append(env, "TERM="+name)
	}
	for _, e := range asked {
		if !strings.Contains(e, "=") {
			value, ok := os.LookupEnv(e)
			if !ok {
				continue
			}
			e += "=" + value
		}
		env = append(env, e)
	}
	return env
}

// attach connects a command with vpsctl's own streams until it ends or the user lets go of it.
func (a *app) attach(ctx context.Context, x *api.Command, spec instance.ExecSpec) (int, error) {
	type end struct {
		status int
		err    error
	}
	ended := make(chan end, 2)
	var out, errs io.Writer = a.Stdout, a.Stderr
	if spec.TTY && spec.Stdin && terminal.Is(a.Stdin) {
		t, err := terminal.Open(a.Stdin, a.Stdout)
		if err != nil {
			return 0, err
		}
		defer t.Restore()
		defer terminal.FollowSize(a.Stdin, x.Resize)()
		out = t
		go func() { ended <- end{err: t.CopyInput(x)} }()
	} else if spec.Stdin {
		go func() {
			// If the command ends first, its status is what counts.
			_, _ = io.Copy(x, a.Stdin)
			_ = x.CloseWrite()
		}()
	}
	go func() {
		status, err := x.Copy(out, errs)
		ended <- end{status, err}
	}()
	e := <-ended
	return e.status, e.err
}

// forward sends the command the signals that vpsctl gets.
func forward(signals <-chan os.Signal, x *api.Command) {
	for s := range signals {
		// An error means that the command has ended.
		_ = x.Signal(int(s.(syscall.Signal)))
	}
}
