package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"vps/dump"
	"vps/dump/show"
)

func (a *app) showdumpCmd() *cobra.Command {
	var verify, full bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "showdump FILE",
		Short: "Show what is in a snapshot file",
		Long: "showdump prints what a snapshot file holds: processes, descriptors, memory. With --verify it checks every byte\n" +
			"instead. It needs neither the daemon nor root. - is standard input.",
		Example:           "  vpsctl showdump web.vps\n  vpsctl showdump --verify web.vps\n  vpsctl showdump --json web.vps | jq .",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: each(a.storeFiles),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.showdump(a.context(cmd), args[0], verify, full)
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

func (a *app) showdump(ctx context.Context, path string, verify, full bool) (err error) {
	s, err := openSnapshot(path, a.stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	switch {
	case verify:
		if err := s.Verify(ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "%s: ok, format %s, %d records, %s\n", path, s.Version(), len(s.Keys()), size(uint64(s.Size())))
		return err
	case a.json:
		return show.JSON(a.stdout, s.Snapshot)
	}
	return show.Text(a.stdout, s.Snapshot, show.Options{Full: full})
}

func openSnapshot(path string, stdin *os.File) (*dump.SnapshotFile, error) {
	if path == "-" {
		return dump.Spool(stdin, os.TempDir())
	}
	return dump.OpenFile(path)
}
