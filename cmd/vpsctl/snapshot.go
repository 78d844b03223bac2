package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/cmd/vpsctl/terminal"
	"vps/dump/atomicfile"
	"vps/instance"
	"vps/instance/home"
)

func (a *app) snapshotCmd() *cobra.Command {
	var stop bool
	var opt instance.SnapshotOptions
	cmd := a.JSONFlag(&cobra.Command{
		Use:   "snapshot ID [FILE|-]",
		Short: "Write an instance into a file",
		Long: "snapshot writes what an instance is into FILE, to standard output if that is -, or into a dated file in the\n" +
			"host's store. The file appears when it is whole. The instance goes on, or stays suspended if it was.",
		Example:           "  vpsctl snapshot web\n  vpsctl snapshot web --stop web.vps\n  vpsctl snapshot web - | ssh other vpsctl restore web - --resume",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.complete(1, instance.Running, instance.Suspended),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			file, err := a.snapshotFile(id, args[1:])
			if err != nil {
				return cli.Fail(ctx, "snapshot", id, err)
			}
			opt.Suspend = opt.Suspend || stop
			report, err := a.snapshot(ctx, c, id, file, opt)
			if err == nil && stop {
				// Not before the file is safe: until then the instance can still go on.
				err = c.Park(ctx, id)
			}
			if err != nil {
				return cli.Fail(ctx, "snapshot", id, err)
			}
			return a.printReport(file.Path(), report)
		},
	})
	cmd.Flags().BoolVar(&stop, "stop", false, "end the instance when the file is safe")
	cmd.Flags().BoolVar(&opt.Suspend, "suspend", false, "leave the instance suspended")
	cmd.Flags().StringVar(&opt.Copy, "copy", "auto", "when memory is copied: in `rounds` while the instance runs, while it is \"frozen\", or \"auto\"")
	cmd.MarkFlagsMutuallyExclusive("stop", "suspend")
	return cmd
}

// snapshotFile opens what a snapshot is to be written to.
func (a *app) snapshotFile(id string, args []string) (*atomicfile.File, error) {
	if len(args) > 0 {
		return a.Output(args[0], "a snapshot")
	}
	at, err := home.At(a.Home)
	if err != nil {
		return nil, err
	}
	return at.Snapshots().Create(id)
}

// snapshot writes a snapshot and makes the file appear.
func (a *app) snapshot(ctx context.Context, c client, id string, file *atomicfile.File, opt instance.SnapshotOptions) (report instance.SnapshotReport, err error) {
	defer func() { err = errors.Join(err, file.Discard()) }()
	p := a.Progress("snapshot", id)
	report, err = c.Snapshot(ctx, id, file.File, opt, p.Show)
	p.End()
	if err == nil {
		err = file.Commit()
	}
	return report, err
}

// printReport tells what a snapshot cost; not where the snapshot itself is the output.
func (a *app) printReport(path string, r instance.SnapshotReport) error {
	switch {
	case path == "":
		return nil
	case a.JSON:
		return a.Document("snapshot", struct {
			File string `json:"file"`
			instance.SnapshotReport
		}{path, r})
	}
	_, err := fmt.Fprintf(a.Stdout, "%s: %s, frozen for %s of %s\n", path, cli.Size(uint64(r.Bytes)),
		r.Frozen.Round(100*time.Microsecond), r.Total.Round(100*time.Microsecond))
	return err
}

func (a *app) restoreCmd() *cobra.Command {
	var opt instance.RestoreOptions
	var configFile, network string
	var readdress []string
	cmd := &cobra.Command{
		Use:   "restore ID [FILE|-]",
		Short: "Make an instance of a snapshot",
		Long: "restore makes instance ID of the snapshot in FILE, from standard input if that is -, or of its newest one in\n" +
			"the host's store. It is suspended then, unless it is to be resumed. Its configuration is the file that --config\n" +
			"names, else etc/vps_ID.conf of the host, else the copy in the snapshot with no more than default rights.\n\n" +
			"With --lazy most of its memory comes when it is needed, and in the background: a large instance runs at once.\n\n" +
			"With --network none it has no interface of the host's, with --readdress other addresses. Connections that cannot live\n" +
			"then are closed as a reset by their peers would; what listens goes on.",
		Example: "  vpsctl restore web\n  vpsctl restore web --resume --lazy web.vps\n  vpsctl restore copy --config copy.conf web.vps\n" +
			"  vpsctl restore web2 --readdress 192.0.2.10=192.0.2.11 web.vps",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: cli.Each(either(a.complete(1, instance.Dead), a.Stored, a.configured), a.StoreFiles),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			if opt.Wait && !opt.Lazy {
				return errors.New("--wait is for --lazy: without it, all memory is there when the command ends")
			}
			if network != "" && network != "none" {
				return fmt.Errorf("--network is none or left out, not %q", network)
			}
			opt.Unplug = network == "none"
			if opt.Readdress, err = cli.Addresses(readdress); err != nil {
				return err
			}
			if configFile != "" {
				if opt.Config, err = loadConfig(id, configFile); err != nil {
					return err
				}
			}
			f, err := a.restoreFile(id, args[1:])
			if err != nil {
				return cli.Fail(ctx, "restore", id, err)
			}
			defer f.Close()
			p := a.Progress("restore", id)
			err = c.Restore(ctx, id, f, opt, p.Show)
			p.End()
			return cli.Fail(ctx, "restore", id, err)
		},
	}
	cmd.Flags().BoolVar(&opt.Resume, "resume", false, "let the instance run")
	cmd.Flags().BoolVar(&opt.Lazy, "lazy", false, "let memory come when it is needed, and in the background")
	cmd.Flags().BoolVar(&opt.Wait, "wait", false, "with --lazy: end when all memory is there")
	cmd.Flags().BoolVar(&opt.Force, "force", false, "skip the checks that are safe to skip")
	cmd.Flags().StringVar(&configFile, "config", "", "configuration `FILE`, vps.conf(5)")
	cmd.Flags().StringVar(&network, "network", "", "`none`: without the interfaces that the host gives")
	cmd.Flags().StringArrayVar(&readdress, "readdress", nil, "give it another address, `OLD=NEW`; once for each")
	cmd.MarkFlagsMutuallyExclusive("network", "readdress")
	return cmd
}

// restoreFile opens what a snapshot is to be read from.
func (a *app) restoreFile(id string, args []string) (*os.File, error) {
	switch {
	case len(args) == 0:
		at, err := home.At(a.Home)
		if err != nil {
			return nil, err
		}
		path, err := at.Snapshots().Latest(id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no snapshot of it in %s; give a FILE", at.Snapshots())
		}
		if err != nil {
			return nil, err
		}
		return os.Open(path)
	case args[0] == "-":
		if terminal.Is(a.Stdin) {
			return nil, errors.New("a snapshot does not come from a terminal: give a FILE, or a pipe")
		}
		return a.Stdin, nil
	}
	return os.Open(args[0])
}
