package mount

import (
	"errors"
	"fmt"
	"os"
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
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return t.inode(dir, "", ".", &st)
	}
	in, err := t.describe("", &st)
	if err != nil {
		return err
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return err
	}
	defer f.Close()
	return t.content(f, in)
}

// describe begins the record of a file.
func (t *tree) describe(path string, st *unix.Stat_t) (*dump.Inode, error) {
	*t.next++
	in := &dump.Inode{Id: *t.next, Mount: t.mount, Path: path, Mode: st.Mode, Mtime: st.Mtim.Nano(), Size: uint64(st.Size)}
	var err error
	if in.Uid, err = t.ids.UID(st.Uid); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if in.Gid, err = t.ids.GID(st.Gid); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return in, nil
}

func (t *tree) inode(parent *os.File, path, name string, st *unix.Stat_t) error {
	in, err := t.describe(path, st)
	if err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		if first, ok := t.links[st.Ino]; ok {
			in.LinkTo = first
			return t.sink.Put(in.Id, in)
		}
		t.links[st.Ino] = in.Id
	}
	if kind == unix.S_IFREG || kind == unix.S_IFDIR {
		if in.Xattrs, err = xattrs(parent, name, t.ids); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
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
	return t.content(f, in)
}

// content writes the record of a file with its content.
func (t *tree) content(f *os.File, in *dump.Inode) error {
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
	if err != nil && !errors.Is(err, unix.ENOENT) { // it is deleted, and empty
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

// tree makes the files of a memory file system, which [CheckTree] has looked at, in a directory. What the manager has made at
// the same place already stays, but nothing is reached through its links.
func (r *restorer) tree(mnt *dump.Mount, dir string) error {
	for _, in := range r.trees[mnt.GetId()] {
		path := inodePath(dir, in)
		b := r.s.Room(len(path)*3 + len(in.GetSymlink()) + 2048)
		at, mode := b.String(path), in.GetMode()&0o7777
		if in.GetMountPoint() {
			makeMountPoint(b, path, in.GetMode())
			continue
		}
		switch in.GetMode() & unix.S_IFMT {
		case unix.S_IFDIR:
			b.Try("make directory "+path, unix.SYS_MKDIRAT, unix.AT_FDCWD, at, mode)
			if err := r.finishInode(path, in, nil); err != nil {
				return err
			}
		case unix.S_IFLNK:
			b.Try("make link "+path, unix.SYS_SYMLINKAT, b.String(in.GetSymlink()), unix.AT_FDCWD, at)
			b.Try("own "+path, unix.SYS_FCHOWNAT, unix.AT_FDCWD, at, in.GetUid(), in.GetGid(), unix.AT_SYMLINK_NOFOLLOW)
		case unix.S_IFREG:
			if in.GetLinkTo() != 0 {
				linkInode(b, path, inodePath(dir, r.set.Inodes[in.GetLinkTo()]))
				continue
			}
			b.Try("make "+path, unix.SYS_MKNODAT, unix.AT_FDCWD, at, unix.S_IFREG|mode, 0)
			if err := r.finishInode(path, in, r.content); err != nil {
				return err
			}
		case unix.S_IFIFO, unix.S_IFSOCK:
			if in.GetLinkTo() != 0 {
				linkInode(b, path, inodePath(dir, r.set.Inodes[in.GetLinkTo()]))
				continue
			}
			b.Try("make "+path, unix.SYS_MKNODAT, unix.AT_FDCWD, at, in.GetMode()&(unix.S_IFMT|0o7777), 0)
			b.Call("own "+path, unix.SYS_FCHOWNAT, unix.AT_FDCWD, at, in.GetUid(), in.GetGid(), unix.AT_SYMLINK_NOFOLLOW)
		}
		// Devices are the ruleset's.
	}
	r.setTimes(mnt, dir)
	return r.s.Run()
}

// setTimes sets the times of what has been made: of directories after those of what is in them.
func (r *restorer) setTimes(mnt *dump.Mount, dir string) {
	for _, in := range slices.Backward(r.trees[mnt.GetId()]) {
		if in.GetMountPoint() || in.GetLinkTo() != 0 {
			continue
		}
		path := inodePath(dir, in)
		seconds, nanos := uint64(in.GetMtime()/1e9), uint64(in.GetMtime()%1e9)
		b := r.s.Room(len(path) + 1024)
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
func (r *restorer) finishInode(path string, in *dump.Inode, content object.Content) error {
	flags := uint64(unix.O_RDONLY | unix.O_DIRECTORY)
	if content != nil {
		flags = unix.O_RDWR | unix.O_NONBLOCK
	}
	b := r.s.Room(len(path) + 1024)
	how := object.Place(b, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS})
	fd := b.Call("open "+path, unix.SYS_OPENAT2, unix.AT_FDCWD, b.String(path), how, unix.SizeofOpenHow)
	if err := r.s.Run(); err != nil {
		return err
	}
	number, err := b.Value(fd)
	if err != nil {
		return err
	}
	r.s.Call("own "+path, unix.SYS_FCHOWN, number, in.GetUid(), in.GetGid())
	r.s.Call("set mode of "+path, unix.SYS_FCHMOD, number, in.GetMode()&0o7777)
	if content != nil && in.GetMemory() != 0 {
		if err := fillInode(r.m, int(number), path, in, content); err != nil {
			return fmt.Errorf("fill %s: %w", path, err)
		}
	}
	r.setXattrs(number, path, in)
	r.s.Call("close "+path, unix.SYS_CLOSE, number)
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

// inodePath is the path of a file of a tree that is made in a directory.
func inodePath(dir string, in *dump.Inode) string {
	if in.GetPath() == "" {
		return dir
	}
	return strings.TrimSuffix(dir, "/") + "/" + in.GetPath()
}
