// Package mount has the mounts of an instance and the files of its memory file systems.
//
// They are dumped from mountinfo and by a walk through copies of them, and restored by the maker before any file is opened.
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
	"vps/remote"
)

// Namespace is the mount namespace of an instance: the mounts that its manager makes at every start, and those that it
// made for itself, which can be memory file systems.
type Namespace struct {
	init     int // pid of the instance's init, here
	mounts   []*mountinfo.Info
	standard []string
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
	return &Namespace{init: init, mounts: list, standard: standard}, nil
}

// Probe returns the mounts that cannot be dumped.
func (m *Namespace) Probe() []error {
	var refusals []error
	seen := make(map[string]bool)
	devices := make(map[[2]int]bool)
	for _, mnt := range m.mounts {
		device := [2]int{mnt.Major, mnt.Minor}
		switch {
		case m.isStandard(mnt) && !seen[mnt.Mountpoint]:
		case mnt.FSType == "tmpfs" && mnt.Root == "/" && !seen[mnt.Mountpoint] && !devices[device]:
		default:
			refusals = append(refusals, &object.Refusal{FD: -1, Object: fmt.Sprintf("mount %s (%s)", mnt.Mountpoint, mnt.FSType)})
		}
		seen[mnt.Mountpoint], devices[device] = true, true
	}
	return refusals
}

func (m *Namespace) isStandard(mnt *mountinfo.Info) bool {
	return slices.Contains(m.standard, mnt.Mountpoint)
}

// Dump writes the instance's own mounts, and the files of all its memory file systems.
func (m *Namespace) Dump(ids object.IDMaps, sink object.Sink) error {
	next := uint64(0)
	for i, mnt := range m.mounts {
		if mnt.FSType != "tmpfs" || mnt.Root != "/" || m.isStandard(mnt) && slices.Contains(strings.Split(mnt.Options, ","), "ro") {
			continue
		}
		record := &dump.Mount{
			Id: uint64(i + 1), Target: mnt.Mountpoint, Fstype: mnt.FSType, Source: mnt.Source, Root: mnt.Root,
			Options: strings.Split(mnt.Options, ","), Standard: m.isStandard(mnt),
		}
		var err error
		if record.SuperOptions, err = insideOptions(mnt.VFSOptions, ids); err != nil {
			return fmt.Errorf("mount %s: %w", mnt.Mountpoint, err)
		}
		if err := sink.Put(record.Id, record); err != nil {
			return err
		}
		t := &tree{mount: record.Id, ids: ids, sink: sink, next: &next, links: make(map[uint64]uint64), covered: func(path string) bool {
			return slices.Contains(m.standard, strings.TrimSuffix(mnt.Mountpoint, "/")+"/"+strings.TrimPrefix(path, "/"))
		}}
		if err := m.dumpTree(t, mnt.Mountpoint); err != nil {
			return fmt.Errorf("mount %s: %w", mnt.Mountpoint, err)
		}
	}
	return nil
}

// dumpTree dumps the files of a mount, and those below others that are mounted within.
func (m *Namespace) dumpTree(t *tree, at string) error {
	dir, err := m.open(at)
	if err != nil {
		return err
	}
	defer dir.Close()
	return t.dump(dir)
}

// open opens the root of a mount: of a copy that nothing is mounted in, or of the mount itself where the kernel forbids to look
// below what is mounted in it (mount_namespaces(7), locked mounts).
func (m *Namespace) open(at string) (*os.File, error) {
	var fd int
	err := object.InNamespace(m.init, "mnt", unix.CLONE_NEWNS, func() (err error) {
		// The path is the kernel's and leads through no links.
		fd, err = unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.EINVAL {
			fd, err = unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return os.NewFile(uintptr(fd), at), nil
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

// superOptions are those of a tmpfs that mount(2) takes as data.
var superOptions = []string{"size=", "mode=", "uid=", "gid=", "nr_inodes="}

// mountFlags are mount(2)'s flags by their names in mountinfo.
var mountFlags = map[string]uint64{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
}

// Restore makes the instance's own mounts again and fills its memory file systems.
func Restore(s *remote.Script, m *object.Maker, set *object.Set, content object.Content) error {
	ids := object.SortedIDs(set.Mounts)
	for _, id := range ids { // a parent is filled before its children are mounted there
		mnt := set.Mounts[id]
		if !mnt.GetStandard() {
			if err := restoreMount(s, mnt); err != nil {
				return err
			}
		}
		if err := restoreTree(s, m, set, id, content); err != nil {
			return err
		}
	}
	for _, id := range ids {
		mnt := set.Mounts[id]
		if mnt.GetStandard() || !slices.Contains(mnt.GetOptions(), "ro") {
			continue
		}
		flags := uint64(0)
		for _, o := range mnt.GetOptions() {
			flags |= mountFlags[o]
		}
		b := s.Room(len(mnt.GetTarget()) + 1024)
		b.Call("remount "+mnt.GetTarget(), unix.SYS_MOUNT, 0, b.String(mnt.GetTarget()), 0, flags|unix.MS_REMOUNT|unix.MS_BIND, 0)
	}
	return s.Run()
}

// restoreMount mounts a memory file system, writable until it is filled.
func restoreMount(s *remote.Script, mnt *dump.Mount) error {
	if mnt.GetFstype() != "tmpfs" {
		return fmt.Errorf("mount %s (%s): %w", mnt.GetTarget(), mnt.GetFstype(), object.ErrUnsupported)
	}
	flags := uint64(0)
	for _, o := range mnt.GetOptions() {
		flags |= mountFlags[o] &^ unix.MS_RDONLY
	}
	var data []string
	for _, o := range mnt.GetSuperOptions() {
		if slices.ContainsFunc(superOptions, func(p string) bool { return strings.HasPrefix(o, p) }) {
			data = append(data, o)
		}
	}
	options := strings.Join(data, ",")
	b := s.Room(len(mnt.GetTarget()) + len(mnt.GetSource()) + len(options) + 2048)
	b.Call("mount "+mnt.GetTarget(), unix.SYS_MOUNT, b.String(mnt.GetSource()), b.String(mnt.GetTarget()), b.String("tmpfs"),
		flags, b.String(options))
	return s.Run()
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
