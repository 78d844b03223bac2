package lan

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"vps/config"
	"vps/instance/blueprint"
)

// Announce runs the configuration's command that announces the instance's addresses.
func Announce(ctx context.Context, cfg *config.Config) error {
	return tell(ctx, cfg, "NETWORK_ANNOUNCE", cfg.NetworkAnnounce)
}

// Revoke runs the one that takes the announcement back.
func Revoke(ctx context.Context, cfg *config.Config) error {
	return tell(ctx, cfg, "NETWORK_REVOKE", cfg.NetworkRevoke)
}

func tell(ctx context.Context, cfg *config.Config, key, command string) error {
	var all []string
	for _, n := range cfg.Interfaces {
		for _, a := range n.Addresses {
			all = append(all, a.String())
		}
	}
	return blueprint.Command(ctx, cfg, key, command, "VPS_ADDRESSES="+strings.Join(all, " "))
}

// Networks returns those of a configuration with others, separated by commas as IP_NETWORKS has them, or without.
func Networks(cfg *config.Config, others string, remove bool) ([]netip.Prefix, error) {
	named, err := config.Default(cfg.Name).With("IP_NETWORKS", others)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(cfg.Networks)
	for _, n := range named.Networks {
		at := slices.Index(all, n)
		switch {
		case remove && at < 0:
			return nil, fmt.Errorf("%v is not among its networks", n)
		case remove:
			all = slices.Delete(all, at, at+1)
		case at >= 0:
			return nil, fmt.Errorf("%v is among its networks already", n)
		default:
			all = append(all, n)
		}
	}
	return all, nil
}
