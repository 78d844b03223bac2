package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
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
	ref, why, err := d.Locate(path, &st, fs.Type)
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
	if st.Mode&unix.S_IFMT == unix.S_IFREG && !generated(fs) {
		ref.Size, ref.Mtime = uint64(st.Size), st.Mtim.Nano()
	}
	return ref, "", nil
}

// referDeleted makes the reference to a file of which one name is deleted and another, in the same directory, is not.
func (d *Descriptors) referDeleted(name string, st *unix.Stat_t) (ref *dump.FileRef, why string, err error) {
	name = strings.TrimSuffix(name, DeletedMark)
	dir, err := os.Open(fmt.Sprintf("/proc/%d/root%s", d.init, path.Dir(name)))
	if err != nil {
		return nil, "deleted, and its other names are not known", nil
	}
	defer dir.Close()
	for {
		entries, err := dir.Readdirnames(1000)
		for _, entry := range entries {
			var found unix.Stat_t
			if unix.Fstatat(int(dir.Fd()), entry, &found, unix.AT_SYMLINK_NOFOLLOW) == nil && found.Dev == st.Dev && found.Ino == st.Ino {
				other := path.Join(path.Dir(name), entry)
				return &dump.FileRef{Path: name, Ino: st.Ino, Mode: st.Mode, Deleted: true, Other: other}, "", nil
			}
		}
		if err != nil {
			return nil, "deleted, and its other names are not known", nil
		}
	}
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
	ref, why, err := d.Locate(l.Link, &l.Stat, l.fs)
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
	ref.Writable = l.info.flags&unix.O_ACCMODE != unix.O_RDONLY
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
		r.OpenNamed(s, ref.GetPath(), flags, fd)
	}
	if file.GetPos() != 0 && file.GetFlags()&unix.O_PATH == 0 {
		s.Call("seek in "+ref.GetPath(), unix.SYS_LSEEK, fd, file.GetPos(), unix.SEEK_SET)
	}
	exact := file.GetFlags()&unix.O_ACCMODE == unix.O_RDONLY && file.GetFlags()&unix.O_PATH == 0
	r.checks = append(r.checks, func() error { return r.Check(fd, ref, exact) })
	return nil
}

// openUnlinked opens a file by a name that is deleted, while the file has another one beside it.
func (r *Files) openUnlinked(s *remote.Script, ref *dump.FileRef, flags uint32, fd int) error {
	name, other := ref.GetPath(), ref.GetOther()
	if err := object.CheckPath(other); err != nil {
		return err
	}
	if path.Dir(other) != path.Dir(name) || !r.IsPlace(s, path.Dir(name)) {
		return fmt.Errorf("file %s, deleted as %s: %w", other, name, object.ErrChanged)
	}
	r.OpenAside(s, name, flags, fd, func(b *remote.Batch, at remote.Address) {
		b.Call("link "+other, unix.SYS_LINKAT, unix.AT_FDCWD, b.String(other), unix.AT_FDCWD, at, 0)
	})
	return nil
}

// IsPlace tells whether the maker has a directory, and no magic link leads there.
func (r *Files) IsPlace(s *remote.Script, dir string) bool {
	b := s.Room(len(dir) + 512)
	how := object.Place(b, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	found := b.Try("find directory "+dir, unix.SYS_OPENAT2, unix.AT_FDCWD, b.String(dir), how, unix.SizeofOpenHow)
	if err := s.Run(); err != nil {
		return false // the script keeps it
	}
	if _, err := b.Value(found); err != nil {
		return false
	}
	s.Call("close", unix.SYS_CLOSE, r.bench[0])
	return true
}

// OpenAside opens a file by a name that is deleted, in a directory that is there: create makes it at the given path. What
// has the name now keeps it.
func (r *Files) OpenAside(s *remote.Script, name string, flags uint32, fd int, create func(b *remote.Batch, at remote.Address)) {
	aside := name + asideMark
	b := s.Room(4*len(name) + 4096)
	b.Try("rename "+name, unix.SYS_RENAMEAT2, unix.AT_FDCWD, b.String(name), unix.AT_FDCWD, b.String(aside), unix.RENAME_NOREPLACE)
	create(b, b.String(name))
	r.OpenNamed(s, name, flags, fd)
	b = s.Room(4*len(name) + 1024)
	b.Call("unlink "+name, unix.SYS_UNLINKAT, unix.AT_FDCWD, b.String(name), 0)
	b.Try("rename "+aside, unix.SYS_RENAMEAT2, unix.AT_FDCWD, b.String(aside), unix.AT_FDCWD, b.String(name), unix.RENAME_NOREPLACE)
}

// asideMark is added to the name of what is out of the way for a moment.
const asideMark = ".vps"

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
		r.OpenNamed(s, ref.GetPath(), uint32(flags), fd)
	}
	if err := s.Run(); err != nil {
		return -1, err
	}
	return fd, r.Check(fd, ref, flags&unix.O_PATH == 0)
}
