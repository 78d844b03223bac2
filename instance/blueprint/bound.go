package blueprint

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"vps/account"
	"vps/config"
	"vps/devfs"
)

// limits returns the limits of a configuration that can be set, and the resources of those that cannot be yet.
func limits(cfg *config.Config) (all []account.Limit, unenforced []string, err error) {
	for _, l := range cfg.Limits.All() {
		if l.Soft == 0 && l.Hard == 0 {
			continue
		}
		one := account.Limit{Resource: l.Resource, Soft: l.Soft, Hard: l.Hard}
		switch err := one.Validate(); {
		case errors.Is(err, account.ErrUnsupported):
			unenforced = append(unenforced, l.Resource)
		case err != nil:
			return nil, nil, err
		default:
			all = append(all, one)
		}
	}
	return all, unenforced, nil
}

// Unenforced returns the resources that a configuration limits to no effect: this version cannot do that yet.
func Unenforced(cfg *config.Config) ([]string, error) {
	_, unenforced, err := limits(cfg)
	return unenforced, err
}

// Bound gives the control group of an instance its limits, and the devices that its cell has. What a host cannot do, and an
// instance can do without, is told to log.
func Bound(group *account.Group, cfg *config.Config, nodes []devfs.Node, log *slog.Logger) error {
	all, unenforced, err := limits(cfg)
	if err != nil {
		return err
	}
	if len(unenforced) > 0 {
		log.Warn("limits are not enforced", "instance", cfg.Name, "resources", unenforced)
	}
	if err := group.SetLimits(all); err != nil {
		return err
	}
	return guardDevices(group, cfg, nodes, log)
}

// guardDevices has the kernel refuse all devices but those of the ruleset, whatever node leads to them: one in a volume, for
// one. A host without such filters can do without where nobody inside can make nodes and none is to be read only.
func guardDevices(group *account.Group, cfg *config.Config, nodes []devfs.Node, log *slog.Logger) error {
	err := group.SetDevices(devfs.DeviceRules(nodes))
	if err == nil {
		return nil
	}
	needed := slices.ContainsFunc(nodes, func(n devfs.Node) bool { return n.ReadOnly })
	if needed || cfg.UserNS.Host {
		return fmt.Errorf("devices: %w", err)
	}
	log.Warn("devices are not filtered", "instance", cfg.Name, "error", err)
	return nil
}
