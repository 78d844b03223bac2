package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/instance"
	"vps/instance/home"
	"vps/linux/probe"
)

func (a *app) checkCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:   "check [ID]",
		Short: "Tell what this machine offers, or whether an instance can be snapshotted",
		Long: "check without ID tries what the system uses of the kernel, and tells what each missing thing costs; the exit\n" +
			"status is 1 if something is missing that nothing works without. check ID tells whether an instance can be\n" +
			"snapshotted now; else, with exit status 1, what stands in the way.",
		Example:           "  vpsctl check\n  vpsctl check web",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.complete(1, instance.Running, instance.Suspended),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cli.Context(cmd)
			if len(args) == 0 {
				return a.checkHost(ctx)
			}
			return a.checkInstance(ctx, args[0])
		},
	})
}

// feature is a [probe.Result] as a JSON document has it.
type feature struct {
	Name      string `json:"name"`
	Since     string `json:"since,omitempty"`
	Available bool   `json:"available"`
	Needed    bool   `json:"needed"`
	Reason    string `json:"reason,omitempty"`
	Cost      string `json:"cost"`
}

func (a *app) checkHost(ctx context.Context) error {
	at, err := home.At(a.Home)
	if err != nil {
		return err
	}
	var features []feature
	var rows []string
	broken := false
	for _, r := range probe.All(ctx, existing(at.State)) {
		f := feature{Name: r.Name, Since: r.Since, Available: r.Err == nil, Needed: r.Need, Cost: r.Cost}
		here, note := "yes", ""
		if r.Err != nil {
			f.Reason = r.Err.Error()
			here, note = "no", fmt.Sprintf("%s (%s)", r.Cost, f.Reason)
			if r.Need {
				here, broken = "NO", true
			}
		}
		features = append(features, f)
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", r.Name, r.Since, here, note))
	}
	if a.JSON {
		err = a.Document("features", features)
	} else {
		err = a.Table("FEATURE\tSINCE\tHERE\tCOST OF ITS LACK", rows)
	}
	if err == nil && broken {
		return cli.StatusError(exitFailed)
	}
	return err
}

// existing is the nearest directory above path that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == "/" {
			return path
		}
		path = filepath.Dir(path)
	}
}

func (a *app) checkInstance(ctx context.Context, id string) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	r, err := c.Check(ctx, id)
	if err != nil {
		return cli.Fail(ctx, "check", id, err)
	}
	switch {
	case a.JSON:
		err = a.Document("check", r)
	case r.OK:
		_, err = fmt.Fprintf(a.Stdout, "%s can be snapshotted: about %s, frozen for about %s\nmemory is copied %s\n", id, cli.Size(uint64(r.Bytes)),
			r.Frozen.Round(100*time.Microsecond), r.Copy)
	default:
		for _, b := range r.Blockers {
			fmt.Fprintln(a.Stdout, cli.Printable(b.Text))
		}
	}
	if err == nil && !r.OK {
		return cli.StatusError(exitFailed)
	}
	return err
}
