package mount

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
)

// Check looks at everything in the records of mounts and of the files of memory file systems that is used later.
func Check(set *object.Set) error {
	rooted := make(map[uint64]bool) // mounts from which the way up ends
	for _, m := range object.Sorted(set.Mounts) {
		err := checkMount(m)
		if err == nil && !m.GetStandard() {
			err = checkPlace(set, m, rooted)
		}
		if err != nil {
			return fmt.Errorf("mount %d: %w", m.GetId(), err)
		}
	}
	return checkTree(set)
}

func checkMount(m *dump.Mount) error {
	target, root := m.GetTarget(), m.GetRoot()
	switch {
	case object.CheckPath(target) != nil || path.Clean(target) != target:
		return fmt.Errorf("target %.100q is not valid", target)
	case strings.IndexByte(m.GetSource(), 0) >= 0 || len(m.GetSource()) >= unix.PathMax:
		return fmt.Errorf("source %.100q is not valid", m.GetSource())
	case !m.GetStandard() && m.GetBase() == 0 && (!inMemory(m.GetFstype()) && m.GetFstype() != "proc" || m.GetFile()):
		return fmt.Errorf("%s (%.100s): %w", target, m.GetFstype(), object.ErrUnsupported)
	case m.GetBase() != 0 && root != "" && (!filepath.IsLocal(root) || path.Clean(root) != root || strings.IndexByte(root, 0) >= 0 || len(root) >= unix.PathMax):
		return fmt.Errorf("root %.100q is not valid", root)
	case m.GetDeleted() && (m.GetBase() == 0 || root == ""):
		return fmt.Errorf("a deleted root of a file system of its own")
	case m.GetGroup() != 0 && m.GetMaster() >= m.GetGroup():
		return fmt.Errorf("peer group %d is a slave of group %d", m.GetGroup(), m.GetMaster())
	}
	for _, o := range m.GetSuperOptions() {
		if strings.ContainsAny(o, ",\x00") {
			return fmt.Errorf("option %.100q is not valid", o)
		}
	}
	return nil
}

// checkPlace looks at what the instance's own mounts take from others.
func checkPlace(set *object.Set, m *dump.Mount, rooted map[uint64]bool) error {
	if base := set.Mounts[m.GetBase()]; m.GetBase() != 0 && (base == nil || base == m || !base.GetStandard() && base.GetBase() != 0) {
		return fmt.Errorf("there is no mount %d of a whole file system", m.GetBase())
	}
	var way []uint64
	passed := make(map[uint64]bool)
	for !m.GetStandard() && !rooted[m.GetId()] {
		parent := set.Mounts[m.GetParent()]
		switch {
		case parent == nil:
			return fmt.Errorf("there is no mount %d, its parent", m.GetParent())
		case passed[m.GetId()]:
			return fmt.Errorf("mount %d is mounted in itself", m.GetId())
		case !covers(parent.GetTarget(), m.GetTarget()):
			return fmt.Errorf("%s does not lie in %s", m.GetTarget(), parent.GetTarget())
		}
		passed[m.GetId()] = true
		way = append(way, m.GetId())
		m = parent
	}
	for _, id := range way {
		rooted[id] = true
	}
	return nil
}

// place is a path in a mount.
type place struct {
	mount uint64
	path  string
}

// checkTree looks at the records of inodes: the tree is made from its roots, and only what has been made by a record is a directory
// in it.
func checkTree(set *object.Set) error {
	directories := make(map[place]bool)
	for _, id := range object.SortedIDs(set.Inodes) {
		in := set.Inodes[id]
		if err := checkInode(set, in, directories); err != nil {
			return fmt.Errorf("inode %d: %w", id, err)
		}
	}
	return nil
}

func checkInode(set *object.Set, in *dump.Inode, directories map[place]bool) error {
	name, kind := in.GetPath(), in.GetMode()&unix.S_IFMT
	switch {
	case set.Mounts[in.GetMount()] == nil:
		return fmt.Errorf("there is no mount %d", in.GetMount())
	case name == "" && kind != unix.S_IFDIR && !(set.Mounts[in.GetMount()].GetDeleted() && kind == unix.S_IFREG):
		return fmt.Errorf("the root of mount %d is no directory", in.GetMount())
	case name != "" && (!filepath.IsLocal(name) || path.Clean(name) != name || strings.IndexByte(name, 0) >= 0 || len(name) >= unix.PathMax):
		return fmt.Errorf("path %.100q is not valid", name)
	case strings.IndexByte(in.GetSymlink(), 0) >= 0 || len(in.GetSymlink()) >= unix.PathMax:
		return fmt.Errorf("link to %.100q is not valid", in.GetSymlink())
	}
	if err := checkXattrs(in); err != nil {
		return err
	}
	full := path.Join(set.Mounts[in.GetMount()].GetTarget(), name)
	if name != "" && !directories[place{in.GetMount(), strings.TrimPrefix(path.Dir("/"+name), "/")}] {
		return fmt.Errorf("%s comes before its directory", full)
	}
	if kind == unix.S_IFDIR {
		directories[place{in.GetMount(), name}] = true
	}
	if first := in.GetLinkTo(); first != 0 {
		if other := set.Inodes[first]; other == nil || first >= in.GetId() || other.GetMount() != in.GetMount() || other.GetMode() != in.GetMode() {
			return fmt.Errorf("%s is another name of inode %d, which is not there", full, first)
		}
	}
	if m := set.Memories[in.GetMemory()]; in.GetMemory() != 0 && (m == nil || m.GetKind() != dump.Memory_TMPFS || m.GetSize() != in.GetSize()) {
		return fmt.Errorf("there is no memory %d with the content of %s", in.GetMemory(), full)
	}
	return nil
}
