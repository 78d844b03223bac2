package main

import (
	"context"

	"github.com/spf13/cobra"

	"vps/instance"
)

func (a *app) dumpCmd() *cobra.Command {
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
	return fail(ctx, "dump "+verb, file, err)
}

// bytesDone shows how far work on bytes is.
func (p *progress) bytesDone(phase string) func(done, total uint64) {
	return func(done, total uint64) {
		p.show(instance.Progress{Phase: phase, Bytes: int64(done), Total: int64(total)})
	}
}
