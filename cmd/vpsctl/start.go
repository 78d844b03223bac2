package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/config"
	"vps/instance"
	"vps/instance/home"
)

func (a *app) startCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "start ID [CONFIG]",
		Short: "Start an instance",
		Long: "start runs instance ID: its init becomes pid 1 of a system of its own. Its configuration is the file CONFIG,\n" +
			"else etc/vps_ID.conf of the host, else the one that it had last; see vps.conf(5). With --all, every instance\n" +
			"that has such a file and does not run is started, in their START_ORDER. A start that fails undoes everything.",
		Example: "  vpsctl start web\n  vpsctl start web ./web.conf\n  vpsctl start --all",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return errors.New("either an ID or --all")
			case !all && (len(args) < 1 || len(args) > 2):
				return errors.New("which instance? give its ID, and its CONFIG if need be, or --all")
			}
			return nil
		},
		ValidArgsFunction: cli.Each(either(a.complete(1, instance.Dead, instance.Created), a.configured)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cli.Context(cmd)
			c, err := a.dial()
			if err != nil {
				return err
			}
			if all {
				return a.startAll(ctx, c)
			}
			id := args[0]
			var cfg *config.Config
			if len(args) == 2 {
				if cfg, err = loadConfig(id, args[1]); errors.Is(err, fs.ErrNotExist) && config.ValidName(args[1]) == nil {
					return fmt.Errorf("%w; start takes one instance at a time, or --all", err)
				} else if err != nil {
					return err
				}
			}
			return cli.Fail(ctx, "start", id, c.Start(ctx, id, cfg))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every instance with a configuration file that does not run")
	return cmd
}

// startAll starts what has a configuration file and does not run, one after the other. A failure keeps no other one from
// its turn.
func (a *app) startAll(ctx context.Context, c client) error {
	at, err := home.At(a.Home)
	if err != nil {
		return err
	}
	list, err := c.List(ctx)
	if err != nil {
		return cli.Fail(ctx, "start", "--all", err)
	}
	there := make(map[string]bool)
	for _, i := range list {
		there[i.ID] = i.State != instance.Dead && i.State != instance.Created
	}
	files, err := at.Configs()
	if err != nil {
		return err
	}
	order := make(map[string]int)
	var ids []string
	var errs []error
	for id, file := range files {
		if there[id] {
			continue
		}
		cfg, err := loadConfig(id, file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		order[id] = cfg.StartOrder
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Or(cmp.Compare(order[a], order[b]), cmp.Compare(a, b)) })
	for _, id := range ids {
		errs = append(errs, cli.Fail(ctx, "start", id, c.Start(ctx, id, nil)))
	}
	return cli.Joined(errs)
}

// loadConfig reads a configuration for an instance, whose name overrides the one in the file.
func loadConfig(id, path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, cli.ConfigError(err)
	}
	cfg.Name = id
	return cfg, cli.ConfigError(cfg.Validate())
}

func (a *app) suspendCmd() *cobra.Command {
	return a.simple(&targets{verb: "suspend", states: []instance.State{instance.Running}}, &cobra.Command{
		Use:   "suspend ID...",
		Short: "Stop all tasks of an instance",
		Long: "suspend stops every task of the instances where it is, until resume lets them go on. A suspended instance\n" +
			"depends on nothing: the daemon may end meanwhile.",
		Example: "  vpsctl suspend web\n  vpsctl suspend --all",
	}, client.Suspend)
}

func (a *app) resumeCmd() *cobra.Command {
	return a.simple(&targets{verb: "resume", states: []instance.State{instance.Suspended}}, &cobra.Command{
		Use:     "resume ID...",
		Short:   "Let a suspended instance go on",
		Long:    "resume lets instances go on that were suspended, or restored.",
		Example: "  vpsctl resume web\n  vpsctl resume --all",
	}, client.Resume)
}

func (a *app) abortCmd() *cobra.Command {
	return a.simple(&targets{verb: "abort", states: []instance.State{instance.Suspended}}, &cobra.Command{
		Use:   "abort ID...",
		Short: "End a suspended instance at once",
		Long: "abort ends instances that are suspended, without letting them run again: nobody inside or outside is told.\n" +
			"It is the end of an instance that goes on elsewhere, or of a restore that was not wanted.",
		Example: "  vpsctl abort web",
	}, client.Abort)
}

func (a *app) rmCmd() *cobra.Command {
	return a.simple(&targets{verb: "rm", states: []instance.State{instance.Dead}}, &cobra.Command{
		Use:     "rm ID...",
		Short:   "Forget a dead instance",
		Long:    "rm forgets instances that are dead: how they ended, and what their consoles showed. Their files stay.",
		Example: "  vpsctl rm web\n  vpsctl rm --all",
	}, client.Remove)
}
