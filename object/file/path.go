package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/inode"
	"vps/remote"
)

// Refer notes a file by its path in the instance, which leads to what f is open on. f may be open with O_PATH.
func (d *Descriptors) Refer(f *os.File, path string) (*dump.FileRef, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("fstat %s: %w", path, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return nil, fmt.Errorf("fstatfs %s: %w", path, err)
	}
	if st.Nlink == 0 && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		id, err := d.memory(f, path, &st)
		return &dump.FileRef{Path: strings.TrimSuffix(path, DeletedMark), Mode: st.Mode, Memory: id}, err
	}
	ref, why, err := d.locateOpen(int(f.Fd()), path, &st, fs.Type)
	if err != nil {
		return nil, err
	}
	if why == "" && ref.GetProcess() != 0 && ref.GetDeleted() && d.hasTask(int(ref.GetProcess())) {
		why = "of a process that is gone, while another task has its pid"
	}
	if why != "" {
		return nil, &object.Refusal{FD: -1, Object: path, Why: why}
	}
	return ref, nil
}

// locateOpen is [Descriptors.Locate] for what a descriptor of ours is open on: that may be covered by another mount.
func (d *Descriptors) locateOpen(fd int, name string, st *unix.Stat_t, fs int64) (ref *dump.FileRef, why string, err error) {
	if ref, why, err = d.Locate(name, st, fs); why == "" || err != nil || strings.HasSuffix(name, DeletedMark) || fs == unix.PROC_SUPER_MAGIC {
		return ref, why, err
	}
	name, point, err := d.finder.Beneath(fd, name, st.Dev)
	switch {
	case errors.Is(err, inode.ErrNotFound):
		return nil, why, nil
	case err != nil:
		return nil, "", err
	}
	ref = &dump.FileRef{Path: name, Ino: st.Ino, Mode: st.Mode, Beneath: point}
	describeRef(ref, st, fs)
	return ref, "", nil
}

// describeRef notes what tells whether a file is still the same.
func describeRef(ref *dump.FileRef, st *unix.Stat_t, fs int64) {
	if st.Mode&unix.S_IFMT == unix.S_IFREG && !generated(fs) {
		ref.Size, ref.Mtime = uint64(st.Size), st.Mtim.Nano()
	}
}

// Locate makes the reference to a file, or tells why its path cannot be one.
func (d *Descriptors) Locate(name string, st *unix.Stat_t, fs int64) (ref *dump.FileRef, why string, err error) {
	if !strings.HasPrefix(name, "/") {
		return nil, "lies outside of the instance", nil
	}
	if fs == unix.PROC_SUPER_MAGIC {
		if ref, why := d.locateProc(name, st); ref != nil || why != "" {
			return ref, why, nil
		}
	}
	// The path is the kernel's and leads through no links, but for its own end.
	var found unix.Stat_t
	err = unix.Lstat(fmt.Sprintf("/proc/%d/root%s", d.init, name), &found)
	switch {
	case err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
		return nil, "", fmt.Errorf("lstat %s: %w", name, err)
	case err != nil:
		return d.referDeleted(name, st)
	case found.Dev != st.Dev || found.Ino != st.Ino:
		return nil, "another file has this name now", nil
	}
	ref = &dump.FileRef{Path: name, Ino: st.Ino, Mode: st.Mode}
	describeRef(ref, st, fs)
	return ref, "", nil
}

// referDeleted makes the reference to a file of which one name is deleted and another is not. That is looked for in the same
// directory first.
func (d *Descriptors) referDeleted(name string, st *unix.Stat_t) (ref *dump.FileRef, why string, err error) {
	name = strings.TrimSuffix(name, DeletedMark)
	number := inode.Number{Dev: st.Dev, Ino: st.Ino}
	other, err := d.finder.Beside(name, number)
	if errors.Is(err, inode.ErrNotFound) {
		other, _, err = d.finder.ByNumber(number)
	}
	switch {
	case errors.Is(err, inode.ErrNotFound):
		return nil, "deleted, and its other names are not known", nil
	case err != nil:
		return nil, "", err
	}
	return &dump.FileRef{Path: name, Ino: st.Ino, Mode: st.Mode, Deleted: true, Other: other}, "", nil
}

// generated tells whether the files of a file system have no lasting content: size and times say nothing.
func generated(fs int64) bool {
	switch fs {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.TRACEFS_MAGIC, linux.MQUEUE_MAGIC, unix.DEBUGFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC:
		return true
	}
	return false
}

// Reference notes the path of what a descriptor is open on.
func (d *Descriptors) Reference(l *Look) (*dump.FileRef, error) {
	ref, why, err := d.locateOpen(l.FD, l.Link, &l.Stat, l.fs)
	if err == nil && why != "" {
		err = l.At.Refusal("file "+l.Link, why)
	}
	return ref, err
}

func (d *Descriptors) dumpPath(f *OpenFile, l *Look) error {
	ref, err := d.Reference(l)
	if err != nil {
		return err
	}
	ref.Writable = l.info.Flags&unix.O_ACCMODE != unix.O_RDONLY
	f.Record.Kind = &dump.File_Path{Path: ref}
	return nil
}

// OpenFlags are the flags of open(2) that bring an open file description back without making or changing a file.
func OpenFlags(flags uint32) uint32 {
	const tmpfile = unix.O_TMPFILE &^ unix.O_DIRECTORY
	if flags&unix.O_PATH != 0 {
		return flags & (unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW)
	}
	if flags&tmpfile != 0 {
		flags &^= unix.O_TMPFILE
	}
	return flags&^(unix.O_CREAT|unix.O_EXCL|unix.O_TRUNC|unix.O_ASYNC) | unix.O_NOCTTY
}

// OpenNamed opens a path out of a record in the maker at a descriptor. It leads through no magic link (path_resolution(7)):
// those of the maker's own /proc directory would lead to what is ours. And it never waits for the other end of a FIFO.
func (r *Files) OpenNamed(s *remote.Script, path string, flags uint32, fd int) {
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK
	}
	b := s.Room(len(path) + 512)
	how := object.Place(b, &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_MAGICLINKS})
	b.Call("open "+path, unix.SYS_OPENAT2, unix.AT_FDCWD, b.String(path), how, unix.SizeofOpenHow)
	r.Settle(b, fd)
}

// OpenRef is [Files.OpenNamed] for a file that is there, though perhaps beneath another mount: a copy of its own mount, which is
// attached nowhere, leads there.
func (r *Files) OpenRef(s *remote.Script, ref *dump.FileRef, flags uint32, fd int) {
	point := ref.GetBeneath()
	if point == "" {
		r.OpenNamed(s, ref.GetPath(), flags, fd)
		return
	}
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK
	}
	const there = unix.RESOLVE_NO_MAGICLINKS
	b := s.Room(len(point) + len(ref.GetPath()) + 2048)
	how := object.Place(b, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY, Resolve: there})
	b.Call("find mount "+point, unix.SYS_OPENAT2, unix.AT_FDCWD, b.String(point), how, unix.SizeofOpenHow)
	b.Call("copy mount "+point, unix.SYS_OPEN_TREE, r.bench[0], b.String(""), unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE)
	b.Call("close", unix.SYS_CLOSE, r.bench[0])
	name := "." + strings.TrimPrefix(ref.GetPath(), strings.TrimSuffix(point, "/"))
	how = object.Place(b, &unix.OpenHow{Flags: uint64(flags), Resolve: there | unix.RESOLVE_IN_ROOT})
	b.Call("open "+ref.GetPath(), unix.SYS_OPENAT2, r.bench[1], b.String(name), how, unix.SizeofOpenHow)
	r.Settle(b, fd)
	b.Call("close", unix.SYS_CLOSE, r.bench[1])
}

// restorePath opens a file by its path.
func (r *Files) restorePath(s *remote.Script, file *dump.File, ref *dump.FileRef) error {
	if ref.GetProcess() != 0 {
		return r.restoreProc(s, file, ref)
	}
	fd := r.fds[file.GetId()]
	if err := object.CheckPath(ref.GetPath()); err != nil {
		return err
	}
	flags := OpenFlags(file.GetFlags())
	if ref.GetMode()&unix.S_IFMT == unix.S_IFLNK {
		flags |= unix.O_NOFOLLOW
	}
	if ref.GetDeleted() {
		if err := r.openUnlinked(s, ref, flags, fd); err != nil {
			return err
		}
	} else {
		r.OpenRef(s, ref, flags, fd)
	}
	if file.GetPos() != 0 && file.GetFlags()&unix.O_PATH == 0 {
		s.Call("seek in "+ref.GetPath(), unix.SYS_LSEEK, fd, file.GetPos(), unix.SEEK_SET)
	}
	exact := file.GetFlags()&unix.O_ACCMODE == unix.O_RDONLY && file.GetFlags()&unix.O_PATH == 0
	r.checks = append(r.checks, func() error { return r.Check(fd, ref, exact) })
	return nil
}

// Check tells whether the maker's descriptor is open on the file that ref means; exact: with the same content.
func (r *Files) Check(fd int, ref *dump.FileRef, exact bool) error {
	f, err := r.m.Take(fd)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("fstat %s: %w", ref.GetPath(), err)
	}
	if st.Mode&unix.S_IFMT != ref.GetMode()&unix.S_IFMT {
		return fmt.Errorf("file %s is of another kind: %w", ref.GetPath(), object.ErrChanged)
	}
	if !exact || r.opt.Force || ref.GetMtime() == 0 {
		return nil
	}
	if uint64(st.Size) != ref.GetSize() || st.Mtim.Nano() != ref.GetMtime() {
		return fmt.Errorf("file %s %w", ref.GetPath(), object.ErrChanged)
	}
	return nil
}

// OpenPath opens a file in the maker and returns its descriptor there, which goes when [Files.Install] runs. The file must
// be what it was at the time of the snapshot, unless it is opened with O_PATH or the restore is forced: else [object.ErrChanged].
func (r *Files) OpenPath(ctx context.Context, ref *dump.FileRef, flags int) (int, error) {
	if err := object.CheckPath(ref.GetPath()); err != nil {
		return -1, err
	}
	s := r.m.Page.Script(ctx, r.m.PidFD)
	fd := r.Stage()
	if ref.GetDeleted() {
		if err := r.openUnlinked(s, ref, uint32(flags), fd); err != nil {
			return -1, err
		}
	} else {
		r.OpenRef(s, ref, uint32(flags), fd)
	}
	if err := s.Run(); err != nil {
		return -1, err
	}
	return fd, r.Check(fd, ref, flags&unix.O_PATH == 0)
}
