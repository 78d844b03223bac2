package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/instance"
)

func (a *app) listCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the instances",
		Long:    "list prints a line for each instance of the host.",
		Example: "  vpsctl list\n  vpsctl list --json | jq -r '.instances[].id'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cli.Context(cmd)
			c, err := a.dial()
			if err != nil {
				return err
			}
			list, err := c.List(ctx)
			if err != nil {
				return fmt.Errorf("list: %w", err)
			}
			if a.JSON {
				return a.Document("instances", list)
			}
			rows := make([]string, len(list))
			for n, i := range list {
				rows[n] = fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%s\t%s", i.ID, i.State, i.Processes, cli.Size(i.MemoryBytes),
					cli.CPU(i.CPUNanos), up(i), cli.Printable(i.FSRoot))
			}
			return a.Table("NAME\tSTATE\tPROCS\tMEMORY\tCPU\tUP\tFSROOT", rows)
		},
	})
}

// up is how long an instance has been running.
func up(i instance.Info) string {
	if i.State == instance.Dead {
		return "-"
	}
	return cli.Since(i.Started)
}

func (a *app) showCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:               "show ID",
		Short:             "Show an instance",
		Long:              "show tells what there is to tell of an instance. vps0 is the host itself.",
		Example:           "  vpsctl show web\n  vpsctl show vps0 --json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			i, err := c.Show(ctx, id)
			if err != nil {
				return cli.Fail(ctx, "show", id, err)
			}
			if a.JSON {
				return a.Document("instance", i)
			}
			return cli.Fields(a.Stdout,
				"Name", i.ID,
				"State", string(i.State),
				"Operation", i.Operation,
				"FSRoot", cli.Printable(i.FSRoot),
				"Hostname", cli.Printable(i.Hostname),
				"Init", cli.Printable(i.Init),
				"Init's pid", number(i.PID),
				"First uid", number(i.FirstUID),
				"Processes", fmt.Sprintf("%d, with %d threads", i.Processes, i.Threads),
				"Memory", cli.Size(i.MemoryBytes),
				"Missing yet", missing(i.Missing),
				"Lost memory", cli.Printable(i.Lost),
				"CPU time", cli.CPU(i.CPUNanos),
				"Created", cli.Stamp(i.Created),
				"Started", cli.Stamp(i.Started),
				"Runs", number(i.Runs),
				"Restores", number(i.Restores),
				"Restarts", number(i.Restarts),
				"Ended", cli.Exit(i.ExitStatus),
				"Saved in", i.Saved,
				"Network", network(i),
			)
		},
	})
}

// missing is memory that is yet to come.
func missing(bytes uint64) string {
	if bytes == 0 {
		return ""
	}
	return cli.Size(bytes)
}

// number is a number that is not worth a line if it is 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func (a *app) argshowCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:   "argshow ID",
		Short: "Show what an instance may do",
		Long: "argshow prints the networks, privileges and limits of an instance. The table's flag is C while an instance is\n" +
			"above a soft limit, X if it was stopped by a hard one, x if it has been above a soft one, _ else; - stands for what is\n" +
			"neither measured nor enforced, by this version or while the instance is dead.",
		Example:           "  vpsctl argshow web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			may, err := c.Args(ctx, id)
			if err != nil {
				return cli.Fail(ctx, "argshow", id, err)
			}
			if a.JSON {
				return a.Document("arguments", may)
			}
			if err := cli.Fields(a.Stdout,
				"Networks", strings.Join(may.Networks, " "),
				"Allow", strings.Join(may.Allow, " "),
				"Deny", strings.Join(may.Deny, " "),
				"Nosys", strings.Join(may.Nosys, " "),
			); err != nil {
				return err
			}
			rows := make([]string, len(may.Resources))
			for n, r := range may.Resources {
				rows[n] = fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%d\t%d", r.Name, r.Flag, r.Current, limit(r.Soft), limit(r.Hard), r.SoftHits, r.HardHits)
			}
			return a.Table("RESOURCE\tS\tCURRENT\tSOFT\tHARD\tSOFT HITS\tHARD HITS", rows)
		},
	})
}

// limit is a limit for people; 0 is none.
func limit(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func (a *app) psCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:               "ps ID",
		Short:             "List the processes of an instance",
		Long:              "ps prints a line for each process of an instance: its pid inside and on the host, and what else ps(1) has.",
		Example:           "  vpsctl ps web\n  vpsctl ps web --json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1, instance.Running, instance.Suspended),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			list, err := c.Processes(ctx, id)
			if err != nil {
				return cli.Fail(ctx, "ps", id, err)
			}
			if a.JSON {
				return a.Document("processes", list)
			}
			rows := make([]string, len(list))
			for n, p := range list {
				rows[n] = fmt.Sprintf("%d\t%d\t%d\t%s\t%s\t%d\t%s\t%s\t%s", p.PID, p.PPID, p.HostPID, cli.Printable(p.User), cli.Printable(p.State),
					p.Threads, cli.Size(p.RSSBytes), cli.CPU(p.CPUNanos), cli.Printable(p.Command))
			}
			return a.Table("PID\tPPID\tHOST PID\tUSER\tS\tTHREADS\tRSS\tCPU\tCOMMAND", rows)
		},
	})
}
