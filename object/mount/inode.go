package mount

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// firstTreeMemory is where the ids of tmpfs files' content begin among those of the Memory records.
const firstTreeMemory = 1 << 48

// tree walks a memory file system. The instance is stopped, but what it has put there is not to be trusted: nothing is
// followed, and other mounts are not entered.
type tree struct {
	mount uint64
	dev   uint64
	ids   object.IDMaps
	sink  object.Sink
	next  *uint64
	links map[uint64]uint64 // inode number to Inode record, of files with several names

	// covered tells whether the manager mounts something at a path, which begins with a slash, before the tree is made again.
	covered func(path string) bool
}

func (t *tree) dump(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	t.dev = st.Dev
	return t.inode(dir, "", ".", &st)
}

func (t *tree) inode(parent *os.File, path, name string, st *unix.Stat_t) error {
	*t.next++
	in := &dump.Inode{Id: *t.next, Mount: t.mount, Path: path, Mode: st.Mode, Mtime: st.Mtim.Nano(), Size: uint64(st.Size)}
	var err error
	if in.Uid, err = t.ids.UID(st.Uid); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if in.Gid, err = t.ids.GID(st.Gid); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	kind := st.Mode & unix.S_IFMT
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		if first, ok := t.links[st.Ino]; ok {
			in.LinkTo = first
			return t.sink.Put(in.Id, in)
		}
		t.links[st.Ino] = in.Id
	}
	switch kind {
	case unix.S_IFREG:
		return t.file(parent, name, in)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(parent.Fd()), name, buf)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		in.Symlink = string(buf[:n])
	case unix.S_IFDIR:
		if err := t.sink.Put(in.Id, in); err != nil {
			return err
		}
		return t.children(parent, path, name)
	}
	return t.sink.Put(in.Id, in)
}

func (t *tree) file(parent *os.File, name string, in *dump.Inode) error {
	if in.Size == 0 {
		return t.sink.Put(in.Id, in)
	}
	f, err := openat(parent, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	in.Memory = firstTreeMemory + in.Id
	if err := t.sink.Put(in.Id, in); err != nil {
		return err
	}
	if err := t.sink.Put(in.Memory, &dump.Memory{Id: in.Memory, Kind: dump.Memory_TMPFS, Size: in.Size, Name: in.Path}); err != nil {
		return err
	}
	return t.sink.Memory(in.Memory, f, int64(in.Size))
}

func (t *tree) children(parent *os.File, path, name string) error {
	dir, err := openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", path, err)
	}
	slices.Sort(names)
	for _, child := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), child, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("%s/%s: %w", path, child, err)
		}
		if st.Dev != t.dev || t.covered(path+"/"+child) {
			*t.next++
			covered := &dump.Inode{Id: *t.next, Mount: t.mount, Path: strings.TrimPrefix(path+"/"+child, "/"), Mode: st.Mode & unix.S_IFMT, MountPoint: true}
			if err := t.sink.Put(covered.Id, covered); err != nil {
				return err
			}
			continue
		}
		if err := t.inode(dir, strings.TrimPrefix(path+"/"+child, "/"), child, &st); err != nil {
			return err
		}
	}
	return nil
}

func openat(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// restoreTree makes the files of a memory file system, which [CheckTree] has looked at. What the manager has made at
// the same place already stays, but nothing is reached through its links.
func restoreTree(s *remote.Script, m *object.Maker, set *object.Set, mount uint64, content object.Content) error {
	for _, id := range object.SortedIDs(set.Inodes) {
		in := set.Inodes[id]
		if in.GetMount() != mount {
			continue
		}
		path := inodePath(set, in)
		b := s.Room(len(path)*3 + len(in.GetSymlink()) + 2048)
		at, mode := b.String(path), in.GetMode()&0o7777
		if in.GetMountPoint() {
			makeMountPoint(b, path, in.GetMode())
			continue
		}
		switch in.GetMode() & unix.S_IFMT {
		case unix.S_IFDIR:
			b.Try("make directory "+path, unix.SYS_MKDIRAT, unix.AT_FDCWD, at, mode)
			if err := finishInode(s, m, path, in, nil); err != nil {
				return err
			}
		case unix.S_IFLNK:
			b.Try("make link "+path, unix.SYS_SYMLINKAT, b.String(in.GetSymlink()), unix.AT_FDCWD, at)
			b.Try("own "+path, unix.SYS_FCHOWNAT, unix.AT_FDCWD, at, in.GetUid(), in.GetGid(), unix.AT_SYMLINK_NOFOLLOW)
		case unix.S_IFREG:
			if in.GetLinkTo() != 0 {
				linkInode(b, path, inodePath(set, set.Inodes[in.GetLinkTo()]))
				continue
			}
			b.Try("make "+path, unix.SYS_MKNODAT, unix.AT_FDCWD, at, unix.S_IFREG|mode, 0)
			if err := finishInode(s, m, path, in, content); err != nil {
				return err
			}
		case unix.S_IFIFO, unix.S_IFSOCK:
			if in.GetLinkTo() != 0 {
				linkInode(b, path, inodePath(set, set.Inodes[in.GetLinkTo()]))
				continue
			}
			b.Try("make "+path, unix.SYS_MKNODAT, unix.AT_FDCWD, at, in.GetMode()&(unix.S_IFMT|0o7777), 0)
			b.Call("own "+path, unix.SYS_FCHOWNAT, unix.AT_FDCWD, at, in.GetUid(), in.GetGid(), unix.AT_SYMLINK_NOFOLLOW)
		}
		// Devices are the ruleset's.
	}
	setTimes(s, set, mount)
	return s.Run()
}

// setTimes sets the times of what has been made: of directories after those of what is in them.
func setTimes(s *remote.Script, set *object.Set, mount uint64) {
	for _, id := range slices.Backward(object.SortedIDs(set.Inodes)) {
		in := set.Inodes[id]
		if in.GetMount() != mount || in.GetMountPoint() || in.GetLinkTo() != 0 {
			continue
		}
		path := inodePath(set, in)
		seconds, nanos := uint64(in.GetMtime()/1e9), uint64(in.GetMtime()%1e9)
		b := s.Room(len(path) + 1024)
		b.Try("set time of "+path, unix.SYS_UTIMENSAT, unix.AT_FDCWD, b.String(path), b.Words(seconds, nanos, seconds, nanos),
			unix.AT_SYMLINK_NOFOLLOW)
	}
}

// makeMountPoint makes what another mount covers, if it is not there.
func makeMountPoint(b *remote.Batch, path string, mode uint32) {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		b.Try("make directory "+path, unix.SYS_MKDIRAT, unix.AT_FDCWD, b.String(path), 0o755)
		return
	}
	b.Try("make "+path, unix.SYS_MKNODAT, unix.AT_FDCWD, b.String(path), unix.S_IFREG|0o644, 0)
}

func linkInode(b *remote.Batch, path, target string) {
	b.Try("link "+path, unix.SYS_LINKAT, unix.AT_FDCWD, b.String(target), unix.AT_FDCWD, b.String(path), 0)
}

// finishInode gives a directory or a file its owner and mode, and a file its content, through a descriptor of the maker's.
func finishInode(s *remote.Script, m *object.Maker, path string, in *dump.Inode, content object.Content) error {
	flags := uint64(unix.O_RDONLY | unix.O_DIRECTORY)
	if content != nil {
		flags = unix.O_RDWR | unix.O_NONBLOCK
	}
	b := s.Room(len(path) + 1024)
	how := object.Place(b, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS})
	fd := b.Call("open "+path, unix.SYS_OPENAT2, unix.AT_FDCWD, b.String(path), how, unix.SizeofOpenHow)
	if err := s.Run(); err != nil {
		return err
	}
	number, err := b.Value(fd)
	if err != nil {
		return err
	}
	s.Call("own "+path, unix.SYS_FCHOWN, number, in.GetUid(), in.GetGid())
	s.Call("set mode of "+path, unix.SYS_FCHMOD, number, in.GetMode()&0o7777)
	if content != nil && in.GetMemory() != 0 {
		if err := fillInode(m, int(number), path, in, content); err != nil {
			return fmt.Errorf("fill %s: %w", path, err)
		}
	}
	s.Call("close "+path, unix.SYS_CLOSE, number)
	return nil
}

func fillInode(m *object.Maker, fd int, path string, in *dump.Inode, content object.Content) error {
	f, err := m.Take(fd)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(in.GetSize())); err != nil {
		return err
	}
	return content.Fill(in.GetMemory(), f)
}

// CheckMount looks at everything in a mount record that is used later.
func CheckMount(m *dump.Mount) error {
	switch target := m.GetTarget(); {
	case object.CheckPath(target) != nil || path.Clean(target) != target:
		return fmt.Errorf("target %.100q is not valid", target)
	case strings.IndexByte(m.GetSource(), 0) >= 0 || len(m.GetSource()) >= unix.PathMax:
		return fmt.Errorf("source %.100q is not valid", m.GetSource())
	case !m.GetStandard() && m.GetFstype() != "tmpfs":
		return fmt.Errorf("%s (%.100s): %w", target, m.GetFstype(), object.ErrUnsupported)
	}
	for _, o := range m.GetSuperOptions() {
		if strings.ContainsAny(o, ",\x00") {
			return fmt.Errorf("option %.100q is not valid", o)
		}
	}
	return nil
}

// CheckTree looks at everything in an inode record that is used later: the tree is made from its roots, and only what
// has been made by a record is a directory in it.
func CheckTree(set *object.Set) error {
	directories := make(map[string]bool)
	for _, id := range object.SortedIDs(set.Inodes) {
		in := set.Inodes[id]
		if err := checkInode(set, in, directories); err != nil {
			return fmt.Errorf("inode %d: %w", id, err)
		}
	}
	return nil
}

func checkInode(set *object.Set, in *dump.Inode, directories map[string]bool) error {
	name, kind := in.GetPath(), in.GetMode()&unix.S_IFMT
	switch {
	case set.Mounts[in.GetMount()] == nil:
		return fmt.Errorf("there is no mount %d", in.GetMount())
	case name == "" && kind != unix.S_IFDIR:
		return fmt.Errorf("the root of mount %d is no directory", in.GetMount())
	case name != "" && (!filepath.IsLocal(name) || path.Clean(name) != name || strings.IndexByte(name, 0) >= 0 || len(name) >= unix.PathMax):
		return fmt.Errorf("path %.100q is not valid", name)
	case strings.IndexByte(in.GetSymlink(), 0) >= 0 || len(in.GetSymlink()) >= unix.PathMax:
		return fmt.Errorf("link to %.100q is not valid", in.GetSymlink())
	}
	full := inodePath(set, in)
	if name != "" && !directories[path.Dir(full)] {
		return fmt.Errorf("%s comes before its directory", full)
	}
	if kind == unix.S_IFDIR {
		directories[full] = true
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

func inodePath(set *object.Set, in *dump.Inode) string {
	target := set.Mounts[in.GetMount()].GetTarget()
	if in.GetPath() == "" {
		return target
	}
	return strings.TrimSuffix(target, "/") + "/" + in.GetPath()
}
