package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vps/instance"
)

func (a *app) listCmd() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the instances",
		Long:    "list prints a line for each instance of the host.",
		Example: "  vpsctl list\n  vpsctl list --json | jq -r '.instances[].id'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := a.context(cmd)
			c, err := a.dial()
			if err != nil {
				return err
			}
			list, err := c.List(ctx)
			if err != nil {
				return fmt.Errorf("list: %w", err)
			}
			if a.json {
				return a.document("instances", list)
			}
			rows := make([]string, len(list))
			for n, i := range list {
				rows[n] = fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%s\t%s", i.ID, i.State, i.Processes, size(i.MemoryBytes),
					cpu(i.CPUNanos), up(i), printable(i.FSRoot))
			}
			return a.table("NAME\tSTATE\tPROCS\tMEMORY\tCPU\tUP\tFSROOT", rows)
		},
	})
}

// up is how long an instance has been running.
func up(i instance.Info) string {
	if i.State == instance.Dead {
		return "-"
	}
	return since(i.Started)
}

func (a *app) showCmd() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:               "show ID",
		Short:             "Show an instance",
		Long:              "show tells what there is to tell of an instance. vps0 is the host itself.",
		Example:           "  vpsctl show web\n  vpsctl show vps0 --json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := a.context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			i, err := c.Show(ctx, id)
			if err != nil {
				return fail(ctx, "show", id, err)
			}
			if a.json {
				return a.document("instance", i)
			}
			return fields(a.stdout,
				"Name", i.ID,
				"State", string(i.State),
				"Operation", i.Operation,
				"FSRoot", printable(i.FSRoot),
				"Hostname", printable(i.Hostname),
				"Init", printable(i.Init),
				"Init's pid", number(i.PID),
				"First uid", number(i.FirstUID),
				"Processes", fmt.Sprintf("%d, with %d threads", i.Processes, i.Threads),
				"Memory", size(i.MemoryBytes),
				"Missing yet", missing(i.Missing),
				"Lost memory", printable(i.Lost),
				"CPU time", cpu(i.CPUNanos),
				"Created", stamp(i.Created),
				"Started", stamp(i.Started),
				"Runs", number(i.Runs),
				"Restores", number(i.Restores),
				"Restarts", number(i.Restarts),
				"Ended", exit(i.ExitStatus),
				"Saved in", i.Saved,
			)
		},
	})
}

// missing is memory that is yet to come.
func missing(bytes uint64) string {
	if bytes == 0 {
		return ""
	}
	return size(bytes)
}

// number is a number that is not worth a line if it is 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func (a *app) argshowCmd() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "argshow ID",
		Short: "Show what an instance may do",
		Long: "argshow prints the networks, privileges and limits of an instance. The table's flag is C while an instance is\n" +
			"above a soft limit, X if it was stopped by a hard one, x if it has been above a soft one, _ else; - stands for what is\n" +
			"neither measured nor enforced, by this version or while the instance is dead.",
		Example:           "  vpsctl argshow web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := a.context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			may, err := c.Args(ctx, id)
			if err != nil {
				return fail(ctx, "argshow", id, err)
			}
			if a.json {
				return a.document("arguments", may)
			}
			if err := fields(a.stdout,
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
			return a.table("RESOURCE\tS\tCURRENT\tSOFT\tHARD\tSOFT HITS\tHARD HITS", rows)
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
	return a.jsonFlag(&cobra.Command{
		Use:               "ps ID",
		Short:             "List the processes of an instance",
		Long:              "ps prints a line for each process of an instance: its pid inside and on the host, and what else ps(1) has.",
		Example:           "  vpsctl ps web\n  vpsctl ps web --json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1, instance.Running, instance.Suspended),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := a.context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			list, err := c.Processes(ctx, id)
			if err != nil {
				return fail(ctx, "ps", id, err)
			}
			if a.json {
				return a.document("processes", list)
			}
			rows := make([]string, len(list))
			for n, p := range list {
				rows[n] = fmt.Sprintf("%d\t%d\t%d\t%s\t%s\t%d\t%s\t%s\t%s", p.PID, p.PPID, p.HostPID, printable(p.User), printable(p.State),
					p.Threads, size(p.RSSBytes), cpu(p.CPUNanos), printable(p.Command))
			}
			return a.table("PID\tPPID\tHOST PID\tUSER\tS\tTHREADS\tRSS\tCPU\tCOMMAND", rows)
		},
	})
}
