// Package blueprint says what a configuration means for the cell of an instance: how it is built, what is run in it with which
// rights, and what it may use.
package blueprint

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

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

// Place is where an instance is on its host.
type Place struct {
	ID       string
	Run      string // its run directory
	Rulesets string // the file of device rulesets
	FirstUID int    // the host's id of its 0, unless its users are the host's
}

// Spec says how the cell of an instance is built. The caller adds its control group, and whatever is particular to this time.
func Spec(cfg *config.Config, at Place) (cell.Spec, error) {
	s := cell.Spec{
		ID: at.ID, Root: cfg.Root, Hostname: cfg.UTSName(), Run: at.Run, Console: cfg.Console,
		Masks: masks, ReadOnly: readOnly,
	}
	if cfg.UserNS.Host {
		s.ReadOnly = slices.Concat(readOnly, hostOnly)
	} else {
		s.UserNS = []remote.IDMap{{Inside: 0, Host: at.FirstUID, Size: idrange.Size}}
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
	rules, err := devfs.Load(at.Rulesets, cmp.Or(cfg.DevfsRuleset, devfs.DefaultName))
	if err != nil {
		return s, err
	}
	s.Devices, err = rules.Nodes(os.DirFS("/dev"))
	return s, err
}

// Privileges returns the privileges that a configuration gives.
func Privileges(cfg *config.Config) (*priv.Set, error) {
	return priv.New(cfg.PrivAllow, cfg.PrivDeny, cfg.PrivNosys, !cfg.UserNS.Host)
}

// Rights returns what init and every command may do.
func Rights(cfg *config.Config) (cell.Rights, error) {
	set, err := Privileges(cfg)
	if err != nil {
		return cell.Rights{}, err
	}
	filter, err := set.Filter()
	return cell.Rights{Capabilities: set.Capabilities(), Filter: filter}, err
}

// Rlimits returns the limits of every process.
func Rlimits(cfg *config.Config) []cell.Rlimit {
	var all []cell.Rlimit
	for _, l := range cfg.Rlimits {
		all = append(all, cell.Rlimit{Resource: l.Resource, Soft: l.Soft, Hard: l.Hard})
	}
	return all
}

// Path is the variable PATH, unless a configuration sets it.
const Path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Init returns how init is run.
func Init(cfg *config.Config) (cell.InitSpec, error) {
	r, err := Rights(cfg)
	return cell.InitSpec{
		Args:   cfg.Init,
		Env:    Environment([]string{Path, "container=vps", "HOME=/", "TERM=linux"}, cfg.Env),
		Rights: r, Rlimits: Rlimits(cfg),
	}, err
}

// Environment joins lists of variables; later ones win.
func Environment(lists ...[]string) []string {
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

// Command runs one of the configuration's commands on the host, by the shell. None is no command.
func Command(ctx context.Context, cfg *config.Config, key, text string, env ...string) error {
	if text == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", text)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "VPS_ID="+cfg.Name, "VPS_ROOT="+cfg.Root)
	cmd.Env = append(cmd.Env, env...)
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
