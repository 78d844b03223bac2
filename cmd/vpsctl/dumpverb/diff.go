package dumpverb

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/dump/diff"
)

// Exit statuses of dump diff, as those of diff(1); 0 is that nothing is different.
const (
	diffOther   = 1
	DiffTrouble = 2 // it cannot be told
)

func (a verbs) dumpDiffCmd() *cobra.Command {
	var full bool
	cmd := a.JSONFlag(&cobra.Command{
		Use:   "diff A B",
		Short: "Compare two snapshot files",
		Long: "diff prints what is different in snapshot B from snapshot A: records that came (+) and went (-), those that\n" +
			"changed (~) field by field, and pages of memory. How pages are stored makes no difference. The exit status is 0 if\n" +
			"nothing is different, 1 if something is, and 2 if that cannot be told.",
		Example: "  vpsctl dump diff before.vps after.vps\n  vpsctl dump diff --json a.vps b.vps | jq .diff.changed",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cli.Context(cmd)
			return failDump(ctx, "diff", args[0]+" "+args[1], a.diff(ctx, args[0], args[1], full))
		},
	})
	cmd.Flags().BoolVar(&full, "full", false, "print all ranges of pages")
	cmd.MarkFlagsMutuallyExclusive("full", "json")
	return cmd
}

func (a verbs) diff(ctx context.Context, pathA, pathB string, full bool) (err error) {
	first, err := openSnapshot(pathA, a.Stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.Close()) }()
	second, err := openSnapshot(pathB, a.Stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Close()) }()
	report, err := diff.Snapshots(ctx, first.Snapshot, second.Snapshot)
	if err != nil {
		return err
	}
	if a.JSON {
		err = a.Document("diff", report)
	} else {
		err = report.Text(a.Stdout, full)
	}
	if err == nil && !report.Same() {
		return cli.StatusError(diffOther)
	}
	return err
}
