// Package mount has the mounts of an instance and the files of its memory file systems.
//
// They are dumped from mountinfo and by a walk through copies of them, and restored as a whole by the maker, before any file is
// opened: each mount is made by itself, aside, where nothing covers it; then they are put together.
package mount

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
)

// Namespace is the mount namespace of an instance: the mounts that its manager makes at every start, and those that it
// made for itself. Who has read it closes it.
type Namespace struct {
	init   int // pid of the instance's init, here
	mounts []*mount
	roots  map[*mount]*os.File // of those that others cover; nil: nobody has asked yet
}

// mount is a mount of the instance.
type mount struct {
	*mountinfo.Info
	standard   bool   // one of the manager's
	parent     *mount // nil: it is not the instance's
	base       *mount // whose file system it shows a part of; nil: it has one of its own
	group      int    // peer groups, by the kernel's numbers; 0: none
	master     int
	unbindable bool
	deleted    bool // its root has no name any more
	record     *dump.Mount
}

// Read reads the mounts of the process init, by its pid here. standard are the mount points of the manager.
func Read(init int, standard []string) (*Namespace, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", init))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return nil, fmt.Errorf("mounts of process %d: %w", init, err)
	}
	m := &Namespace{init: init}
	byID := make(map[int]*mount)
	seen := make(map[string]bool)
	for i, info := range list {
		mnt := &mount{Info: info, record: &dump.Mount{Id: uint64(i + 1)}}
		info.Root, mnt.deleted = strings.CutSuffix(info.Root, "//deleted")
		mnt.standard = slices.Contains(standard, info.Mountpoint) && !seen[info.Mountpoint]
		if err := mnt.readPropagation(); err != nil {
			return nil, fmt.Errorf("mount %s: %w", info.Mountpoint, err)
		}
		seen[info.Mountpoint], byID[info.ID] = true, mnt
		m.mounts = append(m.mounts, mnt)
	}
	for _, mnt := range m.mounts {
		mnt.parent = byID[mnt.Parent]
		if !mnt.standard {
			mnt.base = m.baseOf(mnt)
		}
	}
	return m, nil
}

// baseOf finds the mount with whose help another part of its file system is mounted again: one of the manager's, or the first one of
// the whole file system.
func (m *Namespace) baseOf(mnt *mount) *mount {
	for _, standard := range []bool{true, false} {
		for _, b := range m.mounts {
			if b.deleted || b.standard != standard || b.Major != mnt.Major || b.Minor != mnt.Minor || !covers(b.Root, mnt.Root) || !standard && b.Root != "/" {
				continue
			}
			if b == mnt {
				return nil
			}
			return b
		}
	}
	return nil
}

// inMemory tells whether a file system's files are nowhere else, so that they are dumped with it.
func inMemory(kind string) bool { return kind == "tmpfs" || kind == "ramfs" }

// covers tells whether a path leads to dir or below it.
func covers(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// relative is the path of what lies below dir, from there.
func relative(dir, path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, strings.TrimSuffix(dir, "/")), "/")
}

// Probe returns the mounts that cannot be dumped.
func (m *Namespace) Probe() []error {
	var refusals []error
	for _, mnt := range m.mounts {
		if ok, why := m.restorable(mnt); !ok {
			refusals = append(refusals, &object.Refusal{FD: -1, Object: fmt.Sprintf("mount %s (%s)", mnt.Mountpoint, mnt.FSType), Why: why})
		}
	}
	return append(refusals, m.probeGroups()...)
}

// restorable tells whether a mount can be made again, or why not. Of the manager's only the files matter.
func (m *Namespace) restorable(mnt *mount) (ok bool, why string) {
	if mnt.standard && !mnt.hasTree() {
		return true, ""
	}
	root := mnt.Root
	if mnt.base != nil {
		root = relative(mnt.base.Root, mnt.Root)
	}
	first, _, _ := strings.Cut(root, "/")
	_, notNumber := strconv.Atoi(first)
	switch {
	case mnt.standard:
	case mnt.parent == nil:
		return false, "it is attached to what is not the instance's"
	case mnt.deleted && mnt.base == nil:
		return false, "its root is deleted"
	case mnt.base == nil && (mnt.Root != "/" || !inMemory(mnt.FSType) && mnt.FSType != "proc"):
		return false, ""
	case mnt.FSType == "proc" && mnt.base != nil && notNumber == nil:
		return false, "a file of a process"
	case slices.Contains([]string{"devpts", "mqueue", "cgroup2"}, mnt.FSType) && root != "":
		return false, ""
	}
	f, err := m.open(mnt)
	if err != nil {
		return false, "its root cannot be opened"
	}
	defer f.Close()
	var st unix.Stat_t
	if mnt.deleted && (unix.Fstat(int(f.Fd()), &st) != nil || st.Nlink != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Mode&unix.S_IFMT != unix.S_IFREG) {
		return false, "its root is deleted, but has another name, or is no file"
	}
	return true, ""
}

// open opens the root of a mount, through some mount of its file system that is not covered, with O_PATH: in a copy that nothing
// is mounted in, or in the mount itself where the kernel forbids to look below what is mounted in it (mount_namespaces(7), locked mounts).
func (m *Namespace) open(mnt *mount) (*os.File, error) {
	fd, err := -1, error(nil)
	for _, through := range slices.Concat([]*mount{mnt}, m.mounts) {
		if through.Major != mnt.Major || through.Minor != mnt.Minor || !covers(through.Root, mnt.Root) || mnt.deleted && through != mnt {
			continue
		}
		err = object.InNamespace(m.init, "mnt", unix.CLONE_NEWNS, func() (err error) {
			fd, err = through.openBelow(relative(through.Root, mnt.Root))
			return err
		})
		if err == nil {
			return os.NewFile(uintptr(fd), mnt.Mountpoint), nil
		}
	}
	if uncovered := m.uncover(); uncovered != nil {
		return nil, uncovered
	}
	root := m.roots[mnt]
	if root == nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	copied, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return os.NewFile(uintptr(copied), mnt.Mountpoint), err
}

// openBelow opens what is below the root of a mount, in the calling thread's namespace.
func (mnt *mount) openBelow(name string) (int, error) {
	// The path is the kernel's and leads through no links.
	top, err := unix.Open(mnt.Mountpoint, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Statx_t
	if err := unix.Statx(top, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil || st.Mnt_id != uint64(mnt.ID) {
		unix.Close(top)
		return -1, unix.ENOENT // covered
	}
	fd, err := unix.OpenTree(top, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err == nil {
		unix.Close(top)
	} else {
		fd = top
	}
	if name == "" {
		return fd, nil
	}
	defer unix.Close(fd)
	return unix.Openat2(fd, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// Dump writes the mounts, and the files of all memory file systems.
func (m *Namespace) Dump(ids object.IDMaps, sink object.Sink) error {
	m.numberGroups()
	next := uint64(0)
	for _, mnt := range m.mounts {
		if err := m.dump(mnt, ids, sink, &next); err != nil {
			return fmt.Errorf("mount %s: %w", mnt.Mountpoint, err)
		}
	}
	return nil
}

func (m *Namespace) dump(mnt *mount, ids object.IDMaps, sink object.Sink, next *uint64) error {
	r := mnt.record
	r.Target, r.Fstype, r.Source, r.Standard = mnt.Mountpoint, mnt.FSType, mnt.Source, mnt.standard
	r.Unbindable, r.Deleted = mnt.unbindable, mnt.deleted
	r.Options = strings.Split(mnt.Options, ",")
	var err error
	if r.SuperOptions, err = insideOptions(mnt.VFSOptions, ids); err != nil {
		return err
	}
	if mnt.parent != nil {
		r.Parent = mnt.parent.record.Id
	}
	var root *os.File
	if !mnt.standard || mnt.hasTree() {
		if root, err = m.open(mnt); err != nil {
			return err
		}
		defer root.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(root.Fd()), &st); err != nil {
			return err
		}
		r.File = st.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	if mnt.base != nil {
		r.Base, r.Root = mnt.base.record.Id, relative(mnt.base.Root, mnt.Root)
	}
	if err := sink.Put(r.Id, r); err != nil || !mnt.hasTree() && !mnt.deleted {
		return err
	}
	t := &tree{mount: r.Id, ids: ids, sink: sink, next: next, links: make(map[uint64]uint64), covered: func(path string) bool {
		if !mnt.standard {
			return false
		}
		at := strings.TrimSuffix(mnt.Mountpoint, "/") + "/" + strings.TrimPrefix(path, "/")
		return slices.ContainsFunc(m.mounts, func(other *mount) bool { return other.standard && other.Mountpoint == at })
	}}
	return t.dump(root)
}

// hasTree tells whether the files of a mount are dumped: those of a memory file system, which only the manager may have had mounted
// read-only when it had none.
func (mnt *mount) hasTree() bool {
	return inMemory(mnt.FSType) && mnt.base == nil && mnt.Root == "/" && !(mnt.standard && slices.Contains(strings.Split(mnt.Options, ","), "ro"))
}

// insideOptions returns the options of a memory file system with the ids of the instance in place of ours.
func insideOptions(text string, ids object.IDMaps) ([]string, error) {
	options := strings.Split(text, ",")
	for i, option := range options {
		name, value, _ := strings.Cut(option, "=")
		translate := map[string]func(uint32) (uint32, error){"uid": ids.UID, "gid": ids.GID}[name]
		if translate == nil {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", option, err)
		}
		id, err := translate(uint32(n))
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", option, err)
		}
		options[i] = fmt.Sprintf("%s=%d", name, id)
	}
	return options, nil
}

// Points returns the mount points of a process, by its pid here.
func Points(pid int) ([]string, error) {
	m, err := Read(pid, nil)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, mnt := range m.mounts {
		list = append(list, mnt.Mountpoint)
	}
	return list, nil
}
