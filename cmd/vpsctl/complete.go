package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vps/api"
	"vps/config"
	"vps/instance"
	"vps/instance/store"
)

// complete offers the names of the instances in some states, or of all if none are given, for the first n arguments.
func (a *app) complete(n int, states ...instance.State) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		c, err := a.dial()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		c.Passive = true
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		list, err := c.List(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, i := range list {
			if (len(states) == 0 || slices.Contains(states, i.State)) && !slices.Contains(args, i.ID) {
				names = append(names, cobra.CompletionWithDesc(i.ID, string(i.State)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// many is for complete: any number of arguments.
const many = 1 << 20

// each completes the first argument by the first list, the second by the second, and later ones as file names.
func each(lists ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(lists) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return lists[len(args)](cmd, args, typed)
	}
}

// either offers what any of the lists does, each name once.
func either(lists ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) (all []string, directive cobra.ShellCompDirective) {
		seen := make(map[string]bool)
		for _, list := range lists {
			var names []string
			names, directive = list(cmd, args, typed)
			for _, n := range names {
				name, _, _ := strings.Cut(n, "\t")
				if !seen[name] {
					seen[name] = true
					all = append(all, n)
				}
			}
		}
		return all, directive &^ cobra.ShellCompDirectiveError
	}
}

// configured offers what has a configuration file, but for instances that are there.
func (a *app) configured(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	home, err := api.HomeAt(a.home)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	there, _ := a.complete(1)(cmd, args, typed)
	var names []string
	for id := range configFiles(home) {
		if !slices.ContainsFunc(there, func(n string) bool { return strings.HasPrefix(n, id+"\t") }) {
			names = append(names, cobra.CompletionWithDesc(id, "configured"))
		}
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}

// configFiles returns the configuration files of the host by the names of their instances.
func configFiles(home api.Home) map[string]string {
	files, _ := filepath.Glob(filepath.Join(home.Etc, config.FileName("*"))) // the pattern is right
	prefix, suffix, _ := strings.Cut(config.FileName("*"), "*")
	byID := make(map[string]string)
	for _, file := range files {
		id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), prefix), suffix)
		if config.ValidName(id) == nil {
			byID[id] = file
		}
	}
	return byID
}

// stored offers the instances of which the host's store has a snapshot.
func (a *app) stored(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
	for _, s := range a.snapshotFiles("") {
		names = append(names, cobra.CompletionWithDesc(s.ID, "snapshot of "+stamp(s.Time)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// storeFiles offers the files of the host's store, of the instance that is named already if one is, and others.
func (a *app) storeFiles(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	id := ""
	if len(args) > 0 {
		id = args[0]
	}
	for _, s := range a.snapshotFiles(id) {
		names = append(names, cobra.CompletionWithDesc(s.File, s.ID+", "+stamp(s.Time)))
	}
	return names, cobra.ShellCompDirectiveDefault
}

// snapshotFiles lists the host's store, the newest first.
func (a *app) snapshotFiles(id string) []store.Snapshot {
	home, err := api.HomeAt(a.home)
	if err != nil {
		return nil
	}
	all, err := home.Snapshots().List(id)
	if err != nil {
		return nil
	}
	slices.Reverse(all)
	return all
}
