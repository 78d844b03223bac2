package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"vps/api"
	"vps/cmd/vpsctl/cli"
	"vps/cmd/vpsctl/daemon"
	"vps/cmd/vpsctl/dumpverb"
	"vps/instance"
	"vps/instance/home"
)

// app is one run of vpsctl.
type app struct {
	cli.IO
	parsed bool // the command line is right: errors are not about usage any more

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
	root.PersistentFlags().StringVar(&a.Home, "home", os.Getenv("VPS_HOME"), "the host's `directory`, with etc, state and run in it (default $VPS_HOME)")
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
			a.suspendCmd(), a.resumeCmd(), a.abortCmd(), a.snapshotCmd(), a.snapshotsCmd(), a.restoreCmd(), dumpverb.Show(&a.IO), dumpverb.Command(&a.IO)}},
		{"Network:", []*cobra.Command{a.ipnetCmd(), a.ifmoveCmd(), a.releaseCmd()}},
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
	root.AddCommand(daemon.Command(version))
	root.SetHelpCommandGroupID(groups[len(groups)-1].title)
	a.notice(root)
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
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
		at, err := home.At(a.Home)
		if err != nil {
			return nil, err
		}
		a.client = api.Dial(at, version)
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
	if running := a.client.Mismatch(); running != "" {
		fmt.Fprintf(a.Stderr, "vpsctl: the daemon is of version %s, this is %s: restart vpsd (instances go on)\n", running, version)
	}
}

// exitStatus is the status that an error ends vpsctl with.
func (a *app) exitStatus(verb string, err error) int {
	if s, ok := errors.AsType[cli.SignalError](err); ok {
		return exitSignal + int(s)
	}
	switch verb {
	case "exec", "execin", "execwt", "shell": // as container tools have it
		if e, ok := errors.AsType[*instance.ExecError](err); ok {
			return e.Status
		}
		return exitExec
	case "diff":
		return dumpverb.DiffTrouble
	}
	if !a.parsed {
		return exitUsage
	}
	return exitFailed
}
