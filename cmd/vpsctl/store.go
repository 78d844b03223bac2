package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"vps/api"
)

func (a *app) snapshotsCmd() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:               "snapshots [ID]",
		Short:             "List the snapshots in the host's store",
		Long:              "snapshots lists the snapshots that snapshot made without a FILE, of one instance or of all.",
		Example:           "  vpsctl snapshots\n  vpsctl snapshots web --json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: each(a.stored),
		RunE: func(_ *cobra.Command, args []string) error {
			home, err := api.HomeAt(a.home)
			if err != nil {
				return err
			}
			id := ""
			if len(args) == 1 {
				id = args[0]
			}
			all, err := home.Snapshots().List(id)
			if err != nil {
				return fmt.Errorf("snapshots: %w", err)
			}
			if a.json {
				return a.document("snapshots", all)
			}
			rows := make([]string, len(all))
			for n, s := range all {
				rows[n] = fmt.Sprintf("%s\t%s\t%s\t%s", s.ID, stamp(s.Time), size(uint64(s.Bytes)), joinNonEmpty(s.File, s.Error))
			}
			return a.table("NAME\tTIME\tSIZE\tFILE", rows)
		},
	})
}
