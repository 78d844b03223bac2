package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/config"
	"vps/instance/blueprint"
)

func (a *app) configCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check configuration files",
		Long:  "config has to do with configuration files of instances, vps.conf(5).",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configCheckCmd(), a.configKeysCmd())
	return cmd
}

// fault is a [config.Error] as a JSON document has it.
type fault struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (a *app) configCheckCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:     "check FILE",
		Short:   "Tell what is wrong with a configuration file",
		Long:    "check reads a configuration file and prints what is wrong with it, by file and line.",
		Example: "  vpsctl config check /etc/vps/vps_web.conf",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := config.Load(args[0])
			if err == nil {
				err = c.Validate()
			}
			if err == nil {
				var idle []string
				if idle, err = blueprint.Unenforced(c); len(idle) > 0 {
					fmt.Fprintf(a.Stderr, "vpsctl: warning: %s: LIMITS: this version does not enforce %s\n", args[0], strings.Join(idle, ", "))
				}
			}
			if a.JSON {
				faults := []fault{}
				for _, e := range config.Errors(err) {
					faults = append(faults, fault{e.File, e.Line, e.Key, e.Msg, e.Hint})
				}
				if err != nil && len(faults) == 0 { // it cannot be read
					return err
				}
				if e := a.Document("errors", faults); e != nil || err == nil {
					return e
				}
				return cli.StatusError(exitFailed)
			}
			if err != nil {
				return cli.ConfigError(err)
			}
			_, err = fmt.Fprintf(a.Stdout, "%s: ok\n", args[0])
			return err
		},
	})
}

func (a *app) configKeysCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:     "keys",
		Short:   "List the keys of configuration files",
		Long:    "keys lists what may be set in a configuration file.",
		Example: "  vpsctl config keys",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.JSON {
				return a.Document("keys", config.Keys())
			}
			var rows []string
			for _, k := range config.Keys() {
				rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", k.Name, k.Value, k.Default, k.Doc))
			}
			return a.Table("KEY\tVALUE\tDEFAULT\tMEANING", rows)
		},
	})
}
