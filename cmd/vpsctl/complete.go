package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vps/instance"
	"vps/instance/home"
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
	at, err := home.At(a.Home)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	there, _ := a.complete(1)(cmd, args, typed)
	var names []string
	files, _ := at.Configs() // what cannot be read is not offered
	for id := range files {
		if !slices.ContainsFunc(there, func(n string) bool { return strings.HasPrefix(n, id+"\t") }) {
			names = append(names, cobra.CompletionWithDesc(id, "configured"))
		}
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}
