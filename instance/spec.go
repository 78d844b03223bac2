package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"vps/account"
	"vps/cell"
	"vps/config"
	"vps/devfs"
	"vps/instance/idrange"
	"vps/priv"
	"vps/remote"
)

// masks are the files that tell of the host or act on it, as container managers hide them.
var masks = []string{
	"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
	"/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap",
}

// readOnly are those that act on the host; hostOnly matters only where the kernel cannot tell the instance's root from the host's.
var (
	readOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq"}
	hostOnly = []string{"/proc/sys"}
)

// spec says how the instance's cell is built. The caller's operation has the instance.
func (i *instance) spec() (cell.Spec, error) {
	cfg := i.cfg
	s := cell.Spec{
		ID: i.id, Root: cfg.Root, Hostname: cfg.UTSName(), BootID: i.rec.BootID.String(), Run: i.host.runDir(i.id), Console: cfg.Console,
		Group: i.group,
		Masks: masks, ReadOnly: readOnly,
	}
	if cfg.UserNS.Host {
		s.ReadOnly = slices.Concat(readOnly, hostOnly)
	} else {
		s.UserNS = []remote.IDMap{{Inside: 0, Host: i.rec.FirstUID, Size: idrange.Size}}
	}
	for _, m := range cfg.Mounts {
		s.Mounts = append(s.Mounts, cell.Mount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Size: m.Size})
	}
	for _, c := range cfg.Sysctls {
		s.Sysctl = append(s.Sysctl, cell.Sysctl{Path: filepath.Join("/proc/sys", c.Path()), Value: c.Value})
	}
	if len(cfg.DNS) > 0 {
		var text strings.Builder
		for _, server := range cfg.DNS {
			fmt.Fprintf(&text, "nameserver %s\n", server)
		}
		s.Files = append(s.Files, cell.File{Path: "/etc/resolv.conf", Content: text.String()})
	}
	if cfg.MachineID != "" {
		s.Files = append(s.Files, cell.File{Path: "/etc/machine-id", Content: cfg.MachineID + "\n"})
	}
	rules, err := devfs.Load(filepath.Join(i.host.dirs.etc, "devfs.rules"), orDefault(cfg.DevfsRuleset, devfs.DefaultName))
	if err != nil {
		return s, err
	}
	s.Devices, err = rules.Nodes(os.DirFS("/dev"))
	return s, err
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

func privileges(cfg *config.Config) (*priv.Set, error) {
	return priv.New(cfg.PrivAllow, cfg.PrivDeny, cfg.PrivNosys, !cfg.UserNS.Host)
}

func rights(cfg *config.Config) (cell.Rights, error) {
	set, err := privileges(cfg)
	if err != nil {
		return cell.Rights{}, err
	}
	filter, err := set.Filter()
	return cell.Rights{Capabilities: set.Capabilities(), Filter: filter}, err
}

func rlimits(cfg *config.Config) []cell.Rlimit {
	var all []cell.Rlimit
	for _, l := range cfg.Rlimits {
		all = append(all, cell.Rlimit{Resource: l.Resource, Soft: l.Soft, Hard: l.Hard})
	}
	return all
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (i *instance) initSpec() (cell.InitSpec, error) {
	r, err := rights(i.cfg)
	return cell.InitSpec{
		Args:   i.cfg.Init,
		Env:    environment([]string{defaultPath, "container=vps", "HOME=/", "TERM=linux"}, i.cfg.Env),
		Rights: r, Rlimits: rlimits(i.cfg),
	}, err
}

// environment joins lists of variables; later ones win.
func environment(lists ...[]string) []string {
	var all []string
	for _, list := range lists {
		for _, v := range list {
			name, _, _ := strings.Cut(v, "=")
			at := slices.IndexFunc(all, func(other string) bool { return strings.HasPrefix(other, name+"=") })
			if at >= 0 {
				all[at] = v
			} else {
				all = append(all, v)
			}
		}
	}
	return all
}

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

// limit sets the limits of the configuration.
func (i *instance) limit() error {
	all, unenforced, err := limits(i.cfg)
	if err != nil {
		return err
	}
	if len(unenforced) > 0 {
		i.host.log.Warn("limits are not enforced", "instance", i.id, "resources", unenforced)
	}
	return i.group.SetLimits(all)
}

// guardDevices has the kernel refuse all devices but those of the ruleset, whatever node leads to them: one in a volume, for
// one. A host without such filters can do without where nobody inside can make nodes and none is to be read only.
func (i *instance) guardDevices(nodes []devfs.Node) error {
	err := i.group.SetDevices(devfs.DeviceRules(nodes))
	if err == nil {
		return nil
	}
	needed := slices.ContainsFunc(nodes, func(n devfs.Node) bool { return n.ReadOnly })
	if needed || i.cfg.UserNS.Host {
		return fmt.Errorf("devices: %w", err)
	}
	i.host.log.Warn("devices are not filtered", "instance", i.id, "error", err)
	return nil
}

// command runs one of the configuration's commands on the host, by the shell.
func (i *instance) command(ctx context.Context, key, text string) error {
	if text == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", text)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "VPS_ID="+i.id, "VPS_ROOT="+i.cfg.Root)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	const most = 1000
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return fmt.Errorf("%s: %w: %s", key, err, strings.TrimSpace(string(out)))
}
