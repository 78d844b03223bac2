package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"vps/api"
	"vps/cmd/vpsctl/cli"
	"vps/dump"
)

// versions is what there is to know of versions.
type versions struct {
	Vpsctl    string `json:"vpsctl"`
	Go        string `json:"go"`
	Format    string `json:"format"`           // of snapshot files
	Daemon    string `json:"daemon,omitempty"` // "" if it does not run
	DaemonPID int    `json:"daemon_pid,omitempty"`
}

func (a *app) versionCmd() *cobra.Command {
	return a.JSONFlag(&cobra.Command{
		Use:     "version",
		Short:   "Print versions",
		Long:    "version prints the version of vpsctl, and of the daemon if it runs.",
		Example: "  vpsctl version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.versions(cli.Context(cmd))
			if err != nil {
				return fmt.Errorf("version: %w", err)
			}
			if a.JSON {
				return a.Document("version", v)
			}
			daemon := v.Daemon
			if daemon == "" {
				daemon = "does not run"
			} else {
				daemon += fmt.Sprintf(" (pid %d)", v.DaemonPID)
			}
			return cli.Fields(a.Stdout, "vpsctl", v.Vpsctl, "vpsd", daemon, "snapshot format", v.Format, "go", v.Go)
		},
	})
}

func (a *app) versions(ctx context.Context) (versions, error) {
	v := versions{Vpsctl: version, Go: runtime.Version(), Format: dump.Version{Major: dump.Major, Minor: dump.Minor}.String()}
	c, err := a.dial()
	if err != nil {
		return v, err
	}
	c.Passive = true
	if v.Daemon, v.DaemonPID, err = c.Version(ctx); errors.Is(err, api.ErrUnavailable) {
		err = nil
	}
	return v, err
}
