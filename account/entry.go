package account

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An Entry is the way of a process into an instance's groups: it is born in
// the v2 group, and then goes into the others by itself. Its cgroup namespace
// must be made afterwards, or it would have the wrong root. Children born later
// follow.
type Entry struct {
	// Unified is the v2 directory, for clone3(2) with CLONE_INTO_CGROUP by
	// somebody with the rights of the instance's root.
	Unified *os.File
	// Tasks are files of the v1 groups: a process moves into one by writing
	// "0" there as long as it has only one thread. A move of the own thread
	// has nothing to wait for. The rights are those of who opened them.
	Tasks []*os.File
}

// Close closes the files.
func (e *Entry) Close() {
	for _, f := range append(e.Tasks, e.Unified) {
		if f != nil {
			f.Close()
		}
	}
}

// Entry opens the way into the root group of the instance. The caller closes
// it.
func (g *Group) Entry() (*Entry, error) { return g.entry(g.Root()) }

// LeafEntry is Entry for a process that joins a running instance: in v2 it
// leads to a group of that name below root, since root may have given its
// controllers to its children and then takes no members. The group is made if
// need be, and belongs to the owner of root.
func (g *Group) LeafEntry(name string) (*Entry, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	leaf := filepath.Join(g.Root(), name)
	var root unix.Stat_t
	if err := unix.Stat(g.Root(), &root); err != nil {
		return nil, fmt.Errorf("stat %s: %w", g.Root(), err)
	}
	switch err := os.Mkdir(leaf, 0o755); {
	case err == nil:
		if err := own(leaf, root.Uid); err != nil {
			return nil, errors.Join(err, os.Remove(leaf))
		}
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	return g.entry(leaf)
}

func (g *Group) entry(unified string) (*Entry, error) {
	e := &Entry{}
	var err error
	if e.Unified, err = openGroup(unified); err != nil {
		return nil, err
	}
	for _, dir := range g.dirsV1() {
		f, err := os.OpenFile(filepath.Join(dir, "root", "tasks"), os.O_WRONLY, 0)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.Tasks = append(e.Tasks, f)
	}
	return e, nil
}

func openGroup(dir string) (*os.File, error) {
	return os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}
