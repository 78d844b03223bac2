package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/instance"
)

func (a *app) eventsCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:               "events [ID...]",
		Short:             "Print what happens to the instances",
		Long:              "events prints a line for each change of these instances, or of all, from now on, until it is interrupted.",
		Example:           "  vpsctl events\n  vpsctl events --json web",
		ValidArgsFunction: a.complete(many),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cli.Context(cmd)
			c, err := a.dial()
			if err != nil {
				return err
			}
			err = c.Events(ctx, func() {}, func(e instance.Event) error {
				if len(args) > 0 && !slices.Contains(args, e.ID) {
					return nil
				}
				return a.printEvent(e)
			})
			return uninterrupted(ctx, "events", err)
		},
	})
}

func (a *app) printEvent(e instance.Event) error {
	if a.JSON { // a document a line
		return a.Encode(struct {
			Schema int `json:"cli.Schema"`
			instance.Event
		}{cli.Schema, e}, "")
	}
	_, err := fmt.Fprintf(a.Stdout, "%s %s %s: %s\n", cli.Stamp(e.Time), e.ID, e.What, joinNonEmpty(string(e.State), cli.Exit(e.ExitStatus)))
	return err
}

func joinNonEmpty(a, b string) string {
	if b == "" {
		return a
	}
	return a + ", " + b
}

// uninterrupted is the error of a verb whose way to end is to be interrupted.
func uninterrupted(ctx context.Context, verb string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", verb, err)
}

func (a *app) logsCmd() *cobra.Command {
	var opt instance.LogOptions
	cmd := &cobra.Command{
		Use:               "logs ID",
		Short:             "Print what an instance's console has shown",
		Long:              "logs prints the history of an instance's console, of a dead instance's too.",
		Example:           "  vpsctl logs web\n  vpsctl logs -f --tail 4096 web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			if err = c.Logs(ctx, id, opt, a.Stdout); opt.Follow && errors.Is(err, context.Canceled) {
				return nil
			}
			return cli.Fail(ctx, "logs", id, err)
		},
	}
	cmd.Flags().BoolVarP(&opt.Follow, "follow", "f", false, "go on with what comes, until the instance is gone")
	cmd.Flags().Int64Var(&opt.Tail, "tail", 0, "only the last `bytes` of what was there before")
	return cmd
}
