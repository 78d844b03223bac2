package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"vps/api"
	"vps/instance"
)

// app is one run of vpsctl.
type app struct {
	home   string // VPS_HOME or --home
	json   bool
	parsed bool // the command line is right: errors are not about usage any more

	stdin, stdout, stderr *os.File

	client *api.Client // nil until it is needed
}

// root is the command vpsctl with all its verbs.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "vpsctl",
		Short: "Manage virtual private systems",
		Long: "vpsctl manages virtual private systems: instances of Linux with processes, network, mounts, users\n" +
			"and limits of their own on the kernel of one host. See vpsctl(8).",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().StringVar(&a.home, "home", os.Getenv("VPS_HOME"), "the host's `directory`, with etc, state and run in it (default $VPS_HOME)")
	root.PersistentFlags().Lookup("home").DefValue = "" // its usage says it
	root.CompletionOptions.HiddenDefaultCmd = true
	groups := []struct {
		title string
		verbs []*cobra.Command
	}{
		{"Instances:", []*cobra.Command{a.startCmd(), a.stopCmd(), a.restartCmd(), a.killCmd(), a.waitCmd(), a.rmCmd()}},
		{"Looking at them:", []*cobra.Command{a.listCmd(), a.showCmd(), a.argshowCmd(), a.psCmd(), a.eventsCmd(), a.logsCmd()}},
		{"Working in them:", []*cobra.Command{a.execCmd(), a.execinCmd(), a.execwtCmd(), a.shellCmd(), a.consoleCmd()}},
		{"Suspending and saving:", []*cobra.Command{
			a.suspendCmd(), a.resumeCmd(), a.abortCmd(), a.snapshotCmd(), a.snapshotsCmd(), a.restoreCmd(), a.showdumpCmd(), a.dumpCmd()}},
		{"The host:", []*cobra.Command{a.checkCmd(), a.configCmd(), a.versionCmd()}},
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, verb := range g.verbs {
			verb.GroupID = g.title
			verb.DisableFlagsInUseLine = true
			root.AddCommand(verb)
		}
	}
	root.AddCommand(daemonCmd())
	root.SetHelpCommandGroupID(groups[len(groups)-1].title)
	a.notice(root)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	return root
}

// notice has it noted when a verb is about to run: the command line is right then. When it is not, its usage is told.
func (a *app) notice(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err != nil && strings.Contains(err.Error(), "arg(s)") { // cobra's own words
				return fmt.Errorf("usage: %s %s", cmd.Root().Name(), cmd.Use)
			}
			return err
		}
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.parsed = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		a.notice(sub)
	}
}

// dial returns the client.
func (a *app) dial() (*api.Client, error) {
	if a.client == nil {
		home, err := api.HomeAt(a.home)
		if err != nil {
			return nil, err
		}
		a.client = api.Dial(home, version)
	}
	return a.client, nil
}

func (a *app) close() {
	if a.client != nil {
		a.client.Close()
	}
}

// warn tells if the daemon is not of this version.
func (a *app) warn() {
	if a.client == nil {
		return
	}
	if daemon := a.client.Mismatch(); daemon != "" {
		fmt.Fprintf(a.stderr, "vpsctl: the daemon is of version %s, this is %s: restart vpsd (instances go on)\n", daemon, version)
	}
}

// signalError is the cause of a context that a signal ended.
type signalError syscall.Signal

func (e signalError) Error() string { return "interrupted" }

// context ends when vpsctl is asked to. A second signal has its usual effect.
func (a *app) context(cmd *cobra.Command) context.Context {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		cancel(signalError((<-signals).(syscall.Signal)))
		signal.Stop(signals)
	}()
	return ctx
}

// fail says what was tried with which instance, and what to do about it. Nothing is said twice.
func fail(ctx context.Context, verb, id string, err error) error {
	if err == nil {
		return nil
	}
	if cause, ok := errors.AsType[signalError](context.Cause(ctx)); ok && errors.Is(err, context.Canceled) {
		err = cause
	}
	what := verb + " " + id + ": "
	text := err.Error()
	for _, said := range []string{what, what, verb + ": ", id + ": "} { // a daemon may say it in layers
		text = strings.TrimPrefix(text, said)
	}
	if text == instance.ErrNotFound.Error() {
		text += "; 'vpsctl list' shows those there are"
	} else if errors.Is(err, instance.ErrState) {
		text += next(verb, id, text)
	}
	return &verbError{text: what + text, err: err}
}

// next says which verb helps where one did not fit the state of an instance.
func next(verb, id, text string) string {
	switch state := instance.State(strings.TrimPrefix(text, "it is ")); {
	case state == instance.Suspended && verb == "stop":
		return fmt.Sprintf("; 'vpsctl resume %s' lets it go on, 'vpsctl abort %s' ends it", id, id)
	case state == instance.Suspended && verb != "suspend":
		return fmt.Sprintf("; 'vpsctl resume %s' lets it go on", id)
	case state == instance.Running && (verb == "rm" || verb == "restore" || verb == "abort"):
		return fmt.Sprintf("; 'vpsctl stop %s' ends it", id)
	case state == instance.Dead && verb != "resume" && verb != "abort":
		return fmt.Sprintf("; 'vpsctl start %s' starts it", id)
	}
	return ""
}

// verbError is an error of one verb, about one instance.
type verbError struct {
	text string
	err  error
}

func (e *verbError) Error() string { return e.text }
func (e *verbError) Unwrap() error { return e.err }

// exitStatus is the status that an error ends vpsctl with.
func (a *app) exitStatus(verb string, err error) int {
	if s, ok := errors.AsType[signalError](err); ok {
		return exitSignal + int(s)
	}
	switch verb {
	case "exec", "execin", "execwt", "shell": // as container tools have it
		if e, ok := errors.AsType[*instance.ExecError](err); ok {
			return e.Status
		}
		return exitExec
	case "diff":
		return diffTrouble
	}
	if !a.parsed {
		return exitUsage
	}
	return exitFailed
}
