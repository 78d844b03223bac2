package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/cmd/vpsctl/terminal"
	"vps/instance"
)

func (a *app) consoleCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "console ID",
		Short: "Attach to an instance's console",
		Long: "console shows what an instance's console has shown, and what it shows from then on; what is typed goes to it.\n" +
			"Several may be attached at once. Enter # . detaches.",
		Example:           "  vpsctl console web\n  echo reboot | vpsctl console web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(1, instance.Running, instance.Suspended),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			console, err := c.Console(ctx, id)
			if err != nil {
				return cli.Fail(ctx, "console", id, err)
			}
			defer console.Close()
			var out io.Writer = a.Stdout
			ended := make(chan error, 2)
			if terminal.Is(a.Stdin) {
				t, err := terminal.Open(a.Stdin, a.Stdout)
				if err != nil {
					return cli.Fail(ctx, "console", id, err)
				}
				defer t.Restore()
				defer terminal.FollowSize(a.Stdin, console.Resize)()
				out = t
				go func() { ended <- t.CopyInput(console) }()
			} else {
				go func() {
					if _, err := io.Copy(console, a.Stdin); err != nil {
						ended <- err
					}
				}()
			}
			go func() {
				_, err := io.Copy(out, console)
				ended <- err
			}()
			if err = <-ended; errors.Is(err, terminal.ErrDetached) {
				_, err = fmt.Fprintf(a.Stderr, "\r\n[detached from %s]\r\n", id)
				return err
			}
			return cli.Fail(ctx, "console", id, err)
		},
	}
}
