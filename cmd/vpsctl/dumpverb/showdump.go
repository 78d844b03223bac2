package dumpverb

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/dump"
	"vps/dump/show"
)

func (a verbs) showdumpCmd() *cobra.Command {
	var verify, full bool
	cmd := a.JSONFlag(&cobra.Command{
		Use:   "showdump FILE",
		Short: "Show what is in a snapshot file",
		Long: "showdump prints what a snapshot file holds: processes, descriptors, memory. With --verify it checks every byte\n" +
			"instead. It needs neither the daemon nor root. - is standard input.",
		Example:           "  vpsctl showdump web.vps\n  vpsctl showdump --verify web.vps\n  vpsctl showdump --json web.vps | jq .",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cli.Each(a.StoreFiles),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.showdump(cli.Context(cmd), args[0], verify, full)
			if err != nil {
				return fmt.Errorf("showdump %s: %w", args[0], err)
			}
			return nil
		},
	})
	cmd.Flags().BoolVar(&verify, "verify", false, "check every byte and print nothing else")
	cmd.Flags().BoolVar(&full, "full", false, "print long lists in full")
	cmd.MarkFlagsMutuallyExclusive("verify", "full", "json")
	return cmd
}

func (a verbs) showdump(ctx context.Context, path string, verify, full bool) (err error) {
	s, err := openSnapshot(path, a.Stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	switch {
	case verify:
		if err := s.Verify(ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.Stdout, "%s: ok, format %s, %d records, %s\n", path, s.Version(), len(s.Keys()), cli.Size(uint64(s.Size())))
		return err
	case a.JSON:
		return show.JSON(a.Stdout, s.Snapshot)
	}
	return show.Text(a.Stdout, s.Snapshot, show.Options{Full: full})
}

func openSnapshot(path string, stdin *os.File) (*dump.SnapshotFile, error) {
	if path == "-" {
		return dump.Spool(stdin, os.TempDir())
	}
	return dump.OpenFile(path)
}
