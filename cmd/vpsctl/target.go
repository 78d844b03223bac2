package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"vps/api"
	"vps/cmd/vpsctl/cli"
	"vps/instance"
)

// targets is a verb that does one thing with each of several instances.
type targets struct {
	verb   string
	states []instance.State // of the instances that it makes sense for
	all    bool
}

// flag gives the verb --all.
func (t *targets) flag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&t.all, "all", false, fmt.Sprintf("every instance that can be: one that is %s", orList(t.states)))
}

// args wants one ID or more, or --all instead.
func (t *targets) args(_ *cobra.Command, args []string) error {
	switch {
	case t.all && len(args) > 0:
		return errors.New("either IDs or --all")
	case !t.all && len(args) == 0:
		return errors.New("which instance? give its ID, or --all")
	}
	return nil
}

// run calls f for all instances at once. It names each one that f failed for.
func (t *targets) run(ctx context.Context, c *api.Client, ids []string, f func(id string) error) error {
	if t.all {
		list, err := c.List(ctx)
		if err != nil {
			return cli.Fail(ctx, t.verb, "--all", err)
		}
		for _, i := range list {
			if i.ID != instance.Host0 && slices.Contains(t.states, i.State) {
				ids = append(ids, i.ID)
			}
		}
	}
	errs := make([]error, len(ids))
	var calls sync.WaitGroup
	for n, id := range ids {
		calls.Go(func() { errs[n] = cli.Fail(ctx, t.verb, id, f(id)) })
	}
	calls.Wait()
	return cli.Joined(errs)
}

// orList writes "a, b or c".
func orList(states []instance.State) string {
	text := ""
	for n, s := range states {
		switch {
		case n > 0 && n == len(states)-1:
			text += " or "
		case n > 0:
			text += ", "
		}
		text += string(s)
	}
	return text
}
