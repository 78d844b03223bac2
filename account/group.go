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

// A Group is the groups of one instance in every hierarchy. It holds nothing
// open, and stays valid when the process that made it dies: see
// [Hierarchies.Find].
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
// may be a member of the base itself; let the daemon join its own group with
// [Hierarchies.Join] first. An error wraps fs.ErrExist if the instance has
// groups; after any error nothing is left behind.
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
	err = errors.Join(g.createV2(mkdir, owner), g.createV1(mkdir))
	if err != nil {
		err = fmt.Errorf("create cgroup of %s: %w", id, err)
		for _, dir := range slices.Backward(made) {
			err = errors.Join(err, os.Remove(dir))
		}
		return nil, err
	}
	return g, nil
}

func (g *Group) createV2(mkdir func(string) error, owner uint32) error {
	top := g.top()
	if err := mkdir(top); err != nil {
		return err
	}
	if err := g.h.delegate(top); err != nil {
		return err
	}
	// The keeper has the rights of the instance's root, and a birth from its
	// group into the instance's needs that of writing to their common ancestor.
	if err := os.Chown(filepath.Join(top, "cgroup.procs"), int(owner), int(owner)); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(top, keeper), g.dir()} {
		if err := mkdir(dir); err != nil {
			return err
		}
	}
	err := errors.Join(
		g.h.delegate(g.dir()),
		write(g.dir(), "cgroup.max.depth", maxDepth),
		write(g.dir(), "cgroup.max.descendants", maxDescendants),
	)
	if err != nil {
		return err
	}
	if err := mkdir(g.Root()); err != nil {
		return err
	}
	return own(g.Root(), owner)
}

func (g *Group) createV1(mkdir func(string) error) error {
	for _, dir := range g.dirsV1() {
		if err := mkdir(dir); err != nil {
			return err
		}
		if err := mkdir(filepath.Join(dir, "root")); err != nil {
			return err
		}
	}
	return nil
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
	if _, err := os.Stat(g.top()); err != nil {
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
// one of ours (.host) or one of the kernel's files.
func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\n\x00") || len(name) > unix.NAME_MAX-len("vps-") ||
		strings.HasPrefix(name, "cgroup.") {
		return fmt.Errorf("cgroup name %q: %w", name, fs.ErrInvalid)
	}
	return nil
}

// Names of v2 groups below ID.
const (
	keeper = "keeper"
	inside = "vps"
)

// top is the v2 group ID.
func (g *Group) top() string { return filepath.Join(g.h.v2, g.path) }

// dir is the v2 group of the instance without its keeper.
func (g *Group) dir() string { return filepath.Join(g.top(), inside) }

// dirsV1 is the groups ID of the v1 hierarchies.
func (g *Group) dirsV1() []string {
	var all []string
	for _, base := range g.h.bases()[1:] {
		all = append(all, filepath.Join(base, g.path))
	}
	return all
}

// Root returns the v2 directory that is the root of the instance's cgroup
// namespace. The instance owns it: everything beneath is hostile input.
func (g *Group) Root() string { return filepath.Join(g.dir(), "root") }

// Keeper opens the v2 group of the instance's keeper, for clone3(2) with
// CLONE_INTO_CGROUP by the daemon. In v1 hierarchies the keeper stays in the
// daemon's groups. The caller closes it.
func (g *Group) Keeper() (*os.File, error) { return openGroup(filepath.Join(g.top(), keeper)) }

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
	for _, dir := range append(g.dirsV1(), g.top()) {
		if err := removeTree(ctx, dir); err != nil {
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
