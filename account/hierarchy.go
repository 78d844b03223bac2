// Package account places instances in control groups: it freezes, kills,
// limits and measures them.
//
// It works on hosts with one v2 hierarchy and on hybrid hosts, where memory
// and pids are v1 hierarchies beside a v2 one. A v2 hierarchy is required,
// for cgroup.freeze and cgroup.kill (Linux 5.2, 5.14). The groups of one host
// home are in the v2 hierarchy
//
//	BASE/vps-HOME/ID           the instance with its keeper
//	BASE/vps-HOME/ID/keeper    its keeper, which outlives a frozen or killed instance
//	BASE/vps-HOME/ID/vps       limits, freeze, kill; the instance does not see it
//	BASE/vps-HOME/ID/vps/root  root of the instance's cgroup namespace
//	BASE/vps-HOME/.host        the daemon
//
// and in v1 hierarchies, which limit and measure, ID, ID/root and .host.
//
// Nothing is moved between groups on the way to a running program: the kernel
// lets the first move wait for a grace period of RCU, around 10 ms
// (cgroup_threadgroup_rwsem in kernel/cgroup/cgroup.c). Processes are born
// where they belong instead: see [Entry].
//
// BASE is the group that systemd delegated to us (Delegate=yes), else the root
// of the hierarchy: the group that a command happens to be started in belongs
// to somebody else, who may freeze, limit or remove it.
//
// Facts about files of control groups are from the kernel's
// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

var (
	// ErrNoUnified says that the host has no cgroup v2 hierarchy mounted.
	ErrNoUnified = errors.New("no cgroup v2 hierarchy is mounted")
	// ErrNoController says that a controller is neither in a v1 hierarchy
	// nor delegated to our base group in the v2 hierarchy.
	ErrNoController = errors.New("controller is not available")
)

// Controllers that limits and accounting need.
const (
	memory = "memory"
	pids   = "pids"
)

// A Hierarchies knows where on this host groups are made. It is read-only and
// may be used by several goroutines.
type Hierarchies struct {
	v2        string            // our base in the v2 hierarchy
	v1        map[string]string // our base by controller, for those in v1 hierarchies
	delegated bool              // v2 is ours to configure, not only to make groups in
}

// Open finds the hierarchies by the calling process' mounts and groups. It
// changes nothing. Errors: ErrNoUnified, or those of reading /proc.
func Open() (*Hierarchies, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return find(mounts, string(own), isDelegated)
}

// find chooses the base groups. own has the syntax of /proc/PID/cgroup,
// cgroups(7): ID:CONTROLLERS:PATH, with no controllers for v2.
func find(mounts []*mountinfo.Info, own string, delegated func(dir string) bool) (*Hierarchies, error) {
	ours := make(map[string]string) // path of our group by controller
	for line := range strings.Lines(own) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			return nil, fmt.Errorf("/proc/self/cgroup: malformed line %q", line)
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			ours[controller] = fields[2]
		}
	}

	i := slices.IndexFunc(mounts, func(m *mountinfo.Info) bool { return m.FSType == "cgroup2" })
	if i < 0 {
		return nil, ErrNoUnified
	}
	unified := mounts[i]
	h := &Hierarchies{v2: unified.Mountpoint, v1: make(map[string]string)}

	// systemd marks only its own hierarchy; what it delegates has the same
	// path in the others.
	subtree := ""
	for path := ours[""]; ; path = filepath.Dir(path) {
		if dir, ok := below(unified, path); ok && delegated(dir) {
			h.v2, h.delegated, subtree = dir, true, path
			break
		}
		if path == "/" || path == "." || path == "" {
			break
		}
	}

	for _, m := range mounts {
		if m.FSType != "cgroup" {
			continue
		}
		for _, controller := range []string{memory, pids} {
			if !slices.Contains(strings.Split(m.VFSOptions, ","), controller) || h.v1[controller] != "" {
				continue
			}
			h.v1[controller] = m.Mountpoint
			if subtree != "" && within(ours[controller], subtree) {
				if dir, ok := below(m, subtree); ok {
					h.v1[controller] = dir
				}
			}
		}
	}
	return h, nil
}

// below translates a group's path into a directory beneath a mount, which may
// show only a part of the hierarchy.
func below(m *mountinfo.Info, path string) (dir string, ok bool) {
	if !within(path, m.Root) {
		return "", false
	}
	rel, err := filepath.Rel(m.Root, path)
	return filepath.Join(m.Mountpoint, rel), err == nil
}

func within(path, ancestor string) bool {
	return path == ancestor || strings.HasPrefix(path, strings.TrimSuffix(ancestor, "/")+"/")
}

// isDelegated reports systemd's mark on a group given away with Delegate=yes
// (systemd's CGROUP_DELEGATION document): trusted.delegate, and since version
// 251 user.delegate.
func isDelegated(dir string) bool {
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		var value [1]byte
		if n, err := unix.Lgetxattr(dir, name, value[:]); err == nil && n == 1 && value[0] == '1' {
			return true
		}
	}
	return false
}

// Controller returns the directory beneath which the controller ("memory",
// "pids") acts on our groups, or an error that wraps ErrNoController and names
// the group that would have to delegate it.
func (h *Hierarchies) Controller(name string) (string, error) {
	if dir, ok := h.v1[name]; ok {
		return dir, nil
	}
	// A group that is not ours must pass the controller on already; ours we
	// tell to.
	file := "cgroup.subtree_control"
	if h.delegated {
		file = "cgroup.controllers"
	}
	available, err := words(h.v2, file)
	if err != nil {
		return "", err
	}
	if !slices.Contains(available, name) {
		return "", fmt.Errorf("%s: %w: not in a v1 hierarchy, and not in %s",
			name, ErrNoController, filepath.Join(h.v2, file))
	}
	return h.v2, nil
}

// bases lists the base of every hierarchy, v2 first, none twice.
func (h *Hierarchies) bases() []string {
	all := []string{h.v2}
	for _, controller := range []string{memory, pids} {
		if dir, ok := h.v1[controller]; ok && !slices.Contains(all, dir) {
			all = append(all, dir)
		}
	}
	return all
}

// delegate lets the children of a v2 group use what it has of the controllers
// that we need.
func (h *Hierarchies) delegate(dir string) error {
	available, err := words(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	enabled, err := words(dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	for _, controller := range []string{memory, pids} {
		if !slices.Contains(available, controller) || slices.Contains(enabled, controller) {
			continue
		}
		err := write(dir, "cgroup.subtree_control", "+"+controller)
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%w (a process is a member of the group itself)", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
