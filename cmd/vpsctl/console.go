package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

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
			ctx, id := a.context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			console, err := c.Console(ctx, id)
			if err != nil {
				return fail(ctx, "console", id, err)
			}
			defer console.Close()
			var out io.Writer = a.stdout
			ended := make(chan error, 2)
			if isTerminal(a.stdin) {
				t, err := openTerminal(a.stdin, a.stdout)
				if err != nil {
					return fail(ctx, "console", id, err)
				}
				defer t.Restore()
				defer followSize(a.stdin, console.Resize)()
				out = t
				go func() { ended <- t.copyInput(console) }()
			} else {
				go func() {
					if _, err := io.Copy(console, a.stdin); err != nil {
						ended <- err
					}
				}()
			}
			go func() {
				_, err := io.Copy(out, console)
				ended <- err
			}()
			if err = <-ended; errors.Is(err, errDetached) {
				_, err = fmt.Fprintf(a.stderr, "\r\n[detached from %s]\r\n", id)
				return err
			}
			return fail(ctx, "console", id, err)
		},
	}
}
