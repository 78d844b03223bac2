package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vps/cmd/vpsctl/cli"
	"vps/instance"
)

func (a *app) ipnetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "ipnet ID add|rem NET,...",
		Short: "Change in which networks an instance may have addresses",
		Long: "ipnet says in which networks an instance may have addresses besides those of its interfaces, or that it may not any more. A\n" +
			"network is an address, or one with the length of its prefix. The change lasts until the instance is started from its file.",
		Example:           "  vpsctl ipnet web add 192.0.2.64/26,2001:db8:1::/64\n  vpsctl ipnet web rem 192.0.2.64/26",
		Args:              cobra.ExactArgs(3),
		ValidArgsFunction: a.complete(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			if args[1] != "add" && args[1] != "rem" {
				return fmt.Errorf("ipnet %s: %q is neither add nor rem", id, args[1])
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			if err := c.AllowNetworks(ctx, id, args[2], args[1] == "rem"); err != nil {
				return cli.Fail(ctx, "ipnet", id, err)
			}
			return nil
		},
	}
}

func (a *app) ifmoveCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "ifmove ID IFNAME [NEWNAME]",
		Short: "Give an instance an interface of the host's",
		Long: "ifmove moves an interface of the host's into an instance that runs, under another name if one is given. When the\n" +
			"instance ends the interface comes back.",
		Example:           "  vpsctl ifmove web eth1\n  vpsctl ifmove web eth1 eth0",
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: a.complete(1, instance.Running),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, id := cli.Context(cmd), args[0]
			c, err := a.dial()
			if err != nil {
				return err
			}
			inside := ""
			if len(args) == 3 {
				inside = args[2]
			}
			if err := c.MoveInterface(ctx, id, args[1], inside); err != nil {
				return cli.Fail(ctx, "ifmove", id, err)
			}
			return nil
		},
	}
}

func (a *app) releaseCmd() *cobra.Command {
	return a.simple(&targets{verb: "release", states: []instance.State{instance.Dead}}, &cobra.Command{
		Use:   "release ID...",
		Short: "Give up the addresses that are kept for an instance",
		Long: "release gives up the addresses that snapshot --stop keeps for an instance until it is restored or started: they are not\n" +
			"announced any more, and others may have them.",
		Example: "  vpsctl release web",
	}, client.Release)
}

// network describes the interfaces at the switch.
func network(i instance.Info) string {
	var lines []string
	for _, n := range i.Interfaces {
		var addresses []string
		for _, a := range n.Addresses {
			addresses = append(addresses, a.String())
		}
		line := fmt.Sprintf("%s: %s", n.Name, strings.Join(addresses, " "))
		if i.Parked {
			line += ", kept for it"
		}
		if n.Link != "" {
			line += fmt.Sprintf("; in %s in %d packets, out %s in %d packets", cli.Size(n.In.Bytes), n.In.Packets, cli.Size(n.Out.Bytes), n.Out.Packets)
		}
		for _, dropped := range []struct {
			what string
			n    uint64
		}{{"spoofed", n.Spoofed}, {"foreign", n.Foreign}, {"flooding", n.Flooded}, {"above the limit", n.In.Limited + n.Out.Limited}, {"not kept", n.Lost}} {
			if dropped.n > 0 {
				line += fmt.Sprintf(", %d %s", dropped.n, dropped.what)
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n\t")
}
