// Package devfs decides what an instance sees in /dev.
//
// A ruleset hides and shows device nodes of the host, by name. What is not
// shown is not there, and devices not shown cannot be opened through a node
// from elsewhere either, if the rules of [DeviceRules] are enforced.
package devfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Type is a kind of entry in /dev.
type Type uint8

const (
	Char    Type = iota // character device
	Block               // block device
	Symlink             // to Node.Link
	Pts                 // directory: a devpts(5) of the instance's own is mounted on it
	Console             // file: the instance's console, a pty, is bound on it
)

func (t Type) String() string {
	return [...]string{"char", "block", "symlink", "pts", "console"}[t]
}

// A Node is an entry of an instance's /dev.
type Node struct {
	Name string // relative to /dev; directories on the way to it are to be made
	Type Type
	// Of devices: permissions, and device number.
	Mode         fs.FileMode
	Major, Minor uint32
	// ReadOnly devices may not be opened for writing. A read-only mount does
	// not stop that, see open(2): the rules of DeviceRules do.
	ReadOnly bool
	// BindFrom is the node of the host, relative to its /dev, that can be bound
	// as it is. It is empty if a rule gives a mode of its own: then the node is
	// to be made by mknod(2) on a file system of the host's user namespace.
	BindFrom string
	Link     string // of symlinks: the target
}

// own are the entries that never come from the host.
var own = [...]Node{
	{Name: "console", Type: Console},
	{Name: "pts", Type: Pts},
	{Name: "ptmx", Type: Symlink, Link: "pts/ptmx"},
	{Name: "fd", Type: Symlink, Link: "/proc/self/fd"},
	{Name: "stdin", Type: Symlink, Link: "/proc/self/fd/0"},
	{Name: "stdout", Type: Symlink, Link: "/proc/self/fd/1"},
	{Name: "stderr", Type: Symlink, Link: "/proc/self/fd/2"},
}

// mounts are directories of /dev whose content is the host's own, whatever a
// ruleset says.
var mounts = []string{"fd", "pts", "shm", "mqueue", "hugepages"}

// Nodes returns what shall be in the instance's /dev, by name, given the
// host's. Devices that the host does not have are left out; so are links that
// lead out of /dev, sockets and directories without a shown device. Infos of
// the file system must have a *syscall.Stat_t, as those of os.DirFS do.
func (r *Ruleset) Nodes(dev fs.FS) ([]Node, error) {
	var nodes []Node
	seen := make(map[string]bool)
	for _, n := range own {
		seen[n.Name] = true
		if r.view(n.Name).shown {
			nodes = append(nodes, n)
		}
	}
	for _, rule := range r.rules {
		if !rule.unhide {
			continue
		}
		names, err := fs.Glob(dev, rule.pattern)
		if err != nil {
			return nil, fmt.Errorf("%s: pattern %q: %w", r.Name, rule.pattern, err)
		}
		for _, name := range names {
			dir, _, inside := strings.Cut(name, "/")
			if seen[name] || inside && slices.Contains(mounts, dir) {
				continue
			}
			seen[name] = true
			v := r.view(name)
			if !v.shown {
				continue
			}
			n, ok, err := node(dev, name, v)
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, fmt.Errorf("device %s: %w", name, err)
			}
			if ok {
				nodes = append(nodes, n)
			}
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, nil
}

// node describes a shown entry of the host's /dev; ok is false for what is
// neither a device nor a link within /dev.
func node(dev fs.FS, name string, v view) (n Node, ok bool, err error) {
	info, err := fs.Lstat(dev, name)
	if err != nil {
		return n, false, err
	}
	n = Node{Name: name, Mode: info.Mode().Perm(), ReadOnly: v.readOnly}
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		target, err := fs.ReadLink(dev, name)
		if err != nil {
			return n, false, err
		}
		inside := !path.IsAbs(target) && filepath.IsLocal(path.Join(path.Dir(name), target))
		return Node{Name: name, Type: Symlink, Link: target}, inside, nil
	case mode&fs.ModeCharDevice != 0:
		n.Type = Char
	case mode&fs.ModeDevice != 0:
		n.Type = Block
	default:
		return n, false, nil
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return n, false, errors.New("file system tells no device numbers")
	}
	n.Major, n.Minor = unix.Major(stat.Rdev), unix.Minor(stat.Rdev)
	n.BindFrom = name
	if v.mode != nil && *v.mode != n.Mode {
		n.Mode, n.BindFrom = *v.mode, ""
	}
	return n, true, nil
}

// DeviceRules returns the rules, as in devices.allow of cgroup v1, that allow
// the nodes and no other device. With a pts come its ptys (major 136 to 143)
// and ptmx (5:2), Documentation/admin-guide/devices.txt.
func DeviceRules(nodes []Node) []string {
	var rules []string
	for _, n := range nodes {
		access := "rwm"
		if n.ReadOnly {
			access = "rm"
		}
		switch n.Type {
		case Char:
			rules = append(rules, fmt.Sprintf("c %d:%d %s", n.Major, n.Minor, access))
		case Block:
			rules = append(rules, fmt.Sprintf("b %d:%d %s", n.Major, n.Minor, access))
		case Pts:
			rules = append(rules, "c 5:2 rwm")
			for major := 136; major <= 143; major++ {
				rules = append(rules, fmt.Sprintf("c %d:* rwm", major))
			}
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}
