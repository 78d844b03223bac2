// Package dumpverb is the verbs of vpsctl that work on snapshot files: showdump, and those of dump.
package dumpverb

import (
	"context"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
)

// verbs have their streams.
type verbs struct{ *cli.IO }

// Show is the verb showdump.
func Show(io *cli.IO) *cobra.Command { return verbs{io}.showdumpCmd() }

// Command is the verb dump with those below it.
func Command(io *cli.IO) *cobra.Command {
	a := verbs{io}
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Convert and compare snapshot files, and take them apart",
		Long: "dump works on snapshot files, as showdump does. It needs neither the daemon nor root. What it reads is checked\n" +
			"first; what it writes appears when it is whole.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.dumpConvertCmd(), a.dumpDiffCmd(), a.dumpExtractCmd())
	return cmd
}

// failDump says what was tried with which file.
func failDump(ctx context.Context, verb, file string, err error) error {
	if err == nil {
		return nil
	}
	return cli.Fail(ctx, "dump "+verb, file, err)
}
