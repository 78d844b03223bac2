package object

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// firstTreeMemory is where the ids of tmpfs files' content begin among those of the Memory records.
const firstTreeMemory = 1 << 48

// tree walks a memory file system. The instance is stopped, but what it has put there is not to be trusted: nothing is
// followed, and other mounts are not entered.
type tree struct {
	mount uint64
	dev   uint64
	ids   IDMaps
	sink  Sink
	next  *uint64
	links map[uint64]uint64 // inode number to Inode record, of files with several names
}

func (t *tree) dump(root string) error {
	// The path leads through /proc/PID/root: its links are the instance's.
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
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
		if st.Dev != t.dev {
			continue // a mount
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

func sortedIDs[V any](m map[uint64]V) []uint64 {
	return slices.SortedFunc(maps.Keys(m), cmp.Compare[uint64])
}

// restoreTree makes the files of the memory file systems. What the manager has made at the same place already stays.
func restoreTree(s *remote.Script, m *Maker, set *Set, content Content) error {
	for _, id := range sortedIDs(set.Inodes) {
		in := set.Inodes[id]
		path, err := inodePath(set, in)
		if err != nil {
			return err
		}
		b := s.Room(len(path)*3 + len(in.GetSymlink()) + 2048)
		at, mode := b.String(path), in.GetMode()&0o7777
		switch in.GetMode() & unix.S_IFMT {
		case unix.S_IFDIR:
			b.Try("make directory "+path, unix.SYS_MKDIRAT, unix.AT_FDCWD, at, mode)
		case unix.S_IFLNK:
			b.Try("make link "+path, unix.SYS_SYMLINKAT, b.String(in.GetSymlink()), unix.AT_FDCWD, at)
			b.Try("own "+path, unix.SYS_FCHOWNAT, unix.AT_FDCWD, at, in.GetUid(), in.GetGid(), unix.AT_SYMLINK_NOFOLLOW)
			continue
		case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
			if in.GetLinkTo() != 0 {
				first, ok := set.Inodes[in.GetLinkTo()]
				if !ok {
					return fmt.Errorf("inode %d: no inode %d", id, in.GetLinkTo())
				}
				target, err := inodePath(set, first)
				if err != nil {
					return err
				}
				b.Try("link "+path, unix.SYS_LINKAT, unix.AT_FDCWD, b.String(target), unix.AT_FDCWD, at, 0)
				continue
			}
			b.Try("make "+path, unix.SYS_MKNODAT, unix.AT_FDCWD, at, in.GetMode()&(unix.S_IFMT|0o7777), 0)
		default:
			continue // devices are the ruleset's
		}
		b.Call("own "+path, unix.SYS_FCHOWNAT, unix.AT_FDCWD, at, in.GetUid(), in.GetGid(), unix.AT_SYMLINK_NOFOLLOW)
		b.Call("set mode of "+path, unix.SYS_FCHMODAT, unix.AT_FDCWD, at, mode)
		if in.GetMemory() != 0 {
			if err := fillInode(s, m, path, in, content); err != nil {
				return err
			}
		}
		b = s.Room(len(path) + 1024)
		b.Try("set time of "+path, unix.SYS_UTIMENSAT, unix.AT_FDCWD, b.String(path),
			b.Words(uint64(in.GetMtime()/1e9), uint64(in.GetMtime()%1e9), uint64(in.GetMtime()/1e9), uint64(in.GetMtime()%1e9)),
			unix.AT_SYMLINK_NOFOLLOW)
	}
	return s.Run()
}

// fillInode writes the content of a file through a descriptor of the maker's.
func fillInode(s *remote.Script, m *Maker, path string, in *dump.Inode, content Content) error {
	b := s.Room(len(path) + 1024)
	fd := b.Call("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD, b.String(path), unix.O_RDWR|unix.O_NOFOLLOW, 0)
	if err := s.Run(); err != nil {
		return err
	}
	number, err := b.Value(fd)
	if err != nil {
		return err
	}
	f, err := m.Take(int(number))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(in.GetSize())); err != nil {
		return fmt.Errorf("fill %s: %w", path, err)
	}
	if err := content.Fill(in.GetMemory(), f); err != nil {
		return fmt.Errorf("fill %s: %w", path, err)
	}
	s.Call("close "+path, unix.SYS_CLOSE, number)
	return nil
}

func inodePath(set *Set, in *dump.Inode) (string, error) {
	mnt, ok := set.Mounts[in.GetMount()]
	if !ok {
		return "", fmt.Errorf("inode %d: no mount %d", in.GetId(), in.GetMount())
	}
	if in.GetPath() == "" {
		return mnt.GetTarget(), nil
	}
	return strings.TrimSuffix(mnt.GetTarget(), "/") + "/" + in.GetPath(), nil
}
