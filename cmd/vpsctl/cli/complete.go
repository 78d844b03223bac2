package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"vps/instance/home"
	"vps/instance/store"
)

// Each completes the first argument by the first list, the second by the second, and later ones as file names.
func Each(lists ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(lists) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return lists[len(args)](cmd, args, typed)
	}
}

// Stored offers the instances of which the host's store has a snapshot.
func (c *IO) Stored(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
	for _, s := range c.snapshotFiles("") {
		names = append(names, cobra.CompletionWithDesc(s.ID, "snapshot of "+Stamp(s.Time)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// StoreFiles offers the files of the host's store, of the instance that is named already if one is, and others.
func (c *IO) StoreFiles(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	id := ""
	if len(args) > 0 {
		id = args[0]
	}
	for _, s := range c.snapshotFiles(id) {
		names = append(names, cobra.CompletionWithDesc(s.File, s.ID+", "+Stamp(s.Time)))
	}
	return names, cobra.ShellCompDirectiveDefault
}

// snapshotFiles lists the host's store, the newest first.
func (c *IO) snapshotFiles(id string) []store.Snapshot {
	at, err := home.At(c.Home)
	if err != nil {
		return nil
	}
	all, err := at.Snapshots().List(id)
	if err != nil {
		return nil
	}
	slices.Reverse(all)
	return all
}
