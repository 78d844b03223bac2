package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/instance/home"
)

func (a *app) snapshotsCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:               "snapshots [ID]",
		Short:             "List the snapshots in the host's store",
		Long:              "snapshots lists the snapshots that snapshot made without a FILE, of one instance or of all.",
		Example:           "  vpsctl snapshots\n  vpsctl snapshots web --json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cli.Each(a.Stored),
		RunE: func(_ *cobra.Command, args []string) error {
			at, err := home.At(a.Home)
			if err != nil {
				return err
			}
			id := ""
			if len(args) == 1 {
				id = args[0]
			}
			all, err := at.Snapshots().List(id)
			if err != nil {
				return fmt.Errorf("snapshots: %w", err)
			}
			if a.JSON {
				return a.Document("snapshots", all)
			}
			rows := make([]string, len(all))
			for n, s := range all {
				rows[n] = fmt.Sprintf("%s\t%s\t%s\t%s", s.ID, cli.Stamp(s.Time), cli.Size(uint64(s.Bytes)), joinNonEmpty(s.File, s.Error))
			}
			return a.Table("NAME\tTIME\tSIZE\tFILE", rows)
		},
	})
}
