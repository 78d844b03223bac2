package account

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What one instance may nest inside its root group: far more than systemd
// makes, far less than would hurt the host.
const (
	maxDepth       = "64"
	maxDescendants = "8192"
)

// A Group is the pair of groups, ID and ID/root, of one instance in every
// hierarchy. It holds nothing open, and stays valid when the process that made
// it dies: see [Hierarchies.Find].
type Group struct {
	h    *Hierarchies
	path string // vps-HOME/ID
}

// Create makes the groups of an instance. home is the hash of the host's home
// and id the instance's name, neither with a slash nor a leading dot. In the
// v2 hierarchy owner, the host uid and gid of the instance's root, is given
// the root group and what cgroup-v2.rst ("Delegation") says to hand over: the
// directory, cgroup.procs, cgroup.threads and cgroup.subtree_control. Groups
// in v1 hierarchies stay the host's: v1 has no safe delegation.
//
// Where the v2 base is delegated to us and holds memory or pids, no process
// may be a member of the base itself; let the daemon join [Hierarchies.Keepers]
// first. An error wraps fs.ErrExist if the instance has groups; after any
// error nothing is left behind.
func (h *Hierarchies) Create(home, id string, owner uint32) (*Group, error) {
	g, err := h.group(home, id)
	if err != nil {
		return nil, err
	}
	if err := h.makeHome(home); err != nil {
		return nil, err
	}
	var made []string
	mkdir := func(dir string) error {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			made = append(made, dir)
		}
		return err
	}
	err = g.create(mkdir, owner)
	if err != nil {
		err = fmt.Errorf("create cgroup of %s: %w", id, err)
		for _, dir := range slices.Backward(made) {
			err = errors.Join(err, os.Remove(dir))
		}
		return nil, err
	}
	return g, nil
}

func (g *Group) create(mkdir func(string) error, owner uint32) error {
	for _, base := range g.h.bases() {
		dir := filepath.Join(base, g.path)
		if err := mkdir(dir); err != nil {
			return err
		}
		if base == g.h.v2 {
			if err := g.prepare(dir); err != nil {
				return err
			}
		}
		if err := mkdir(filepath.Join(dir, "root")); err != nil {
			return err
		}
	}
	return own(g.Root(), owner)
}

// prepare sets up the v2 group ID before its root is made.
func (g *Group) prepare(dir string) error {
	return errors.Join(
		g.h.delegate(dir),
		write(dir, "cgroup.max.depth", maxDepth),
		write(dir, "cgroup.max.descendants", maxDescendants),
	)
}

func own(dir string, owner uint32) error {
	for _, file := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(dir, file), int(owner), int(owner)); err != nil {
			return err
		}
	}
	return nil
}

// Find returns the groups that an earlier Create made, or an error that wraps
// fs.ErrNotExist.
func (h *Hierarchies) Find(home, id string) (*Group, error) {
	g, err := h.group(home, id)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(g.dir()); err != nil {
		return nil, fmt.Errorf("find cgroup of %s: %w", id, err)
	}
	return g, nil
}

func (h *Hierarchies) group(home, id string) (*Group, error) {
	for _, name := range []string{home, id} {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	return &Group{h: h, path: filepath.Join("vps-"+home, id)}, nil
}

// checkName refuses what is no single path element, and names that could meet
// one of ours (.keepers) or one of the kernel's files.
func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\n\x00") || len(name) > unix.NAME_MAX-len("vps-") ||
		strings.HasPrefix(name, "cgroup.") {
		return fmt.Errorf("cgroup name %q: %w", name, fs.ErrInvalid)
	}
	return nil
}

// dir is the v2 group ID.
func (g *Group) dir() string { return filepath.Join(g.h.v2, g.path) }

// Root returns the v2 directory that is the root of the instance's cgroup
// namespace. The instance owns it: everything beneath is hostile input.
func (g *Group) Root() string { return filepath.Join(g.dir(), "root") }

// FD opens the v2 root group for clone3(2) with CLONE_INTO_CGROUP. A process
// born there is not in the v1 groups before [Group.Add]. The caller closes it.
func (g *Group) FD() (*os.File, error) {
	return os.OpenFile(g.Root(), unix.O_PATH|unix.O_DIRECTORY, 0)
}

// Add moves a process, by its pid as the caller sees it, into the root group
// of every hierarchy. Its cgroup namespace must be made afterwards, or it
// would have the wrong root. Children born later follow.
func (g *Group) Add(pid int) error { return g.add(pid, g.Root()) }

// AddLeaf is Add for a process that joins a running instance: in v2 it goes to
// a group of that name below root, since root may have given its controllers
// to its children and then takes no members. The group is made if need be,
// and belongs to the owner of root.
func (g *Group) AddLeaf(pid int, name string) error {
	leaf, err := g.leaf(name)
	if err != nil {
		return err
	}
	var root unix.Stat_t
	if err := unix.Stat(g.Root(), &root); err != nil {
		return fmt.Errorf("stat %s: %w", g.Root(), err)
	}
	switch err := os.Mkdir(leaf, 0o755); {
	case err == nil:
		if err := own(leaf, root.Uid); err != nil {
			return errors.Join(err, os.Remove(leaf))
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	return g.add(pid, leaf)
}

// RemoveLeaf removes an empty group that AddLeaf made. It is no error if it is
// gone; it wraps unix.EBUSY if the group has processes.
func (g *Group) RemoveLeaf(name string) error {
	leaf, err := g.leaf(name)
	if err != nil {
		return err
	}
	if err := os.Remove(leaf); !gone(err) {
		return err
	}
	return nil
}

func (g *Group) leaf(name string) (string, error) {
	return filepath.Join(g.Root(), name), checkName(name)
}

func (g *Group) add(pid int, unified string) error {
	for _, base := range g.h.bases() {
		dir := filepath.Join(base, g.path, "root")
		if base == g.h.v2 {
			dir = unified
		}
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add process %d: %w", pid, err)
		}
	}
	return nil
}

// Procs returns the pids, as the caller sees them, of all processes of the
// instance, in no order and none twice. Processes that come and go meanwhile
// may be missed or gone.
func (g *Group) Procs() ([]int, error) {
	var all []int
	err := walk(g.dir(), func(parent *os.Root, name string) error {
		f, err := parent.Open(filepath.Join(name, "cgroup.procs"))
		if err != nil {
			return err
		}
		defer f.Close()
		members, err := readPids(f)
		all = append(all, members...)
		// A threaded group's processes are listed by its domain.
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func readPids(r io.Reader) ([]int, error) {
	var all []int
	s := bufio.NewScanner(r)
	for s.Scan() {
		pid, err := strconv.Atoi(s.Text())
		if err != nil {
			return all, err
		}
		all = append(all, pid)
	}
	return all, s.Err()
}

// Remove removes all groups of the instance, with those that it made itself,
// in every hierarchy. It waits until ctx ends for the last processes to be
// gone, so kill first. What is gone already is no error.
func (g *Group) Remove(ctx context.Context) error {
	for _, base := range g.h.bases() {
		if err := removeTree(ctx, filepath.Join(base, g.path)); err != nil {
			return err
		}
	}
	return nil
}

func removeTree(ctx context.Context, dir string) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := walk(dir, func(parent *os.Root, name string) error { return parent.Remove(name) })
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w (%w)", dir, err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// gone reports that a group, or a process in it, has vanished: a file opened
// before its group was removed answers ENODEV.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
