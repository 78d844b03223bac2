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
	"vps/object"
	"vps/remote"
)

const (
	DeletedMark = " (deleted)" // what the kernel adds to the path of a file without this name
	memfdMark   = "/memfd:"
)

// Memory returns the id of the Memory record of a file without a name: shared anonymous memory, a memfd, a deleted file.
// name is how /proc calls it. A deleted directory is one too. Record and content are written when the file is met for the first time. f is open for reading.
func (d *Descriptors) Memory(f *os.File, name string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("fstat %s: %w", name, err)
	}
	if st.Nlink != 0 {
		return 0, &object.Refusal{FD: -1, Object: "file " + name, Why: "it has other names"}
	}
	return d.memory(f, name, &st)
}

func (d *Descriptors) memory(f *os.File, name string, st *unix.Stat_t) (uint64, error) {
	id, isNew := d.objects.id(st)
	if !isNew {
		return id, nil
	}
	uid, gid, err := d.Owned(st)
	if err != nil {
		return 0, err
	}
	m := &dump.Memory{Id: id, Size: uint64(st.Size), Mode: st.Mode & 0o7777, Uid: uid, Gid: gid}
	name = strings.TrimSuffix(name, DeletedMark)
	switch {
	case strings.HasPrefix(name, memfdMark):
		m.Kind, m.Name = dump.Memory_MEMFD, strings.TrimPrefix(name, memfdMark)
		seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
		if err != nil {
			return 0, fmt.Errorf("seals of %s: %w", name, err)
		}
		m.Seals = uint32(seals)
	case name == "/dev/zero", strings.HasPrefix(name, "[anon_shmem:"):
		m.Kind = dump.Memory_ANON
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		m.Kind, m.Name, m.Size = dump.Memory_DIRECTORY, name, 0
		m.Mtime, m.Atime = st.Mtim.Nano(), st.Atim.Nano()
		return id, d.sink.Put(id, m)
	default:
		m.Kind, m.Name = dump.Memory_DELETED, name
	}
	if m.Kind != dump.Memory_ANON {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, unix.O_NOATIME); err != nil {
			return 0, fmt.Errorf("keep access time of %s: %w", name, err)
		}
		m.Mtime, m.Atime = st.Mtim.Nano(), st.Atim.Nano()
	}
	if err := d.sink.Put(id, m); err != nil {
		return 0, err
	}
	if err := d.sink.Memory(id, f, st.Size); err != nil {
		return 0, fmt.Errorf("content of %s: %w", name, err)
	}
	return id, nil
}

func (d *Descriptors) dumpMemory(f *OpenFile, l *Look) error {
	fd, err := Reopen(l.FD, l.Link, unix.O_RDONLY) // the description may be for writing only
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), l.Link)
	defer file.Close()
	id, err := d.memory(file, l.Link, &l.Stat)
	if err != nil {
		return err
	}
	f.Record.Kind = &dump.File_Memory{Memory: id}
	return nil
}

// memory is a descriptor of the maker that is open on the object of a Memory record.
type memory struct {
	fd   int
	used bool // it is an open file description of the instance already
}

// MemoryFD returns the maker's descriptor of the object of a Memory record; it goes when [Files.Install] runs.
func (r *Files) MemoryFD(id uint64) (int, error) {
	m, ok := r.memories[id]
	if !ok {
		return -1, fmt.Errorf("there is no memory %d", id)
	}
	return m.fd, nil
}

// restoreMemory makes the object of a Memory record and fills it.
func (r *Files) restoreMemory(ctx context.Context, s *remote.Script, m *dump.Memory) error {
	if int64(m.GetSize()) < 0 || strings.IndexByte(m.GetName(), 0) >= 0 || len(m.GetName()) >= unix.PathMax {
		return fmt.Errorf("size %d or name %.100q is not valid", m.GetSize(), m.GetName())
	}
	fd := r.Stage()
	r.memories[m.GetId()] = &memory{fd: fd}
	var err error
	switch m.GetKind() {
	case dump.Memory_MEMFD:
		r.makeMemfd(s, m, fd)
	case dump.Memory_ANON:
		err = r.makeAnonymous(ctx, s, m, fd)
	case dump.Memory_DELETED, dump.Memory_DIRECTORY:
		err = r.makeDeleted(s, m, fd)
	default:
		err = fmt.Errorf("kind %v: %w", m.GetKind(), object.ErrUnsupported)
	}
	if err != nil {
		return err
	}
	if m.GetKind() != dump.Memory_ANON {
		if m.GetKind() != dump.Memory_DIRECTORY {
			s.Call("set size of "+m.GetName(), unix.SYS_FTRUNCATE, fd, m.GetSize())
		}
		s.Call("own "+m.GetName(), unix.SYS_FCHOWN, fd, m.GetUid(), m.GetGid())
		s.Call("set mode of "+m.GetName(), unix.SYS_FCHMOD, fd, m.GetMode()&0o7777)
	}
	if err := s.Run(); err != nil {
		return err
	}
	f, err := r.m.Take(fd)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.content.Fill(m.GetId(), f); err != nil {
		return fmt.Errorf("fill %s: %w", m.GetName(), err)
	}
	if m.GetMtime() != 0 || m.GetAtime() != 0 {
		times := [2]unix.Timespec{unix.NsecToTimespec(m.GetAtime()), unix.NsecToTimespec(m.GetMtime())}
		b := s.Room(512)
		b.Call("set times of "+m.GetName(), unix.SYS_UTIMENSAT, fd, 0, object.Place(b, &times), 0)
	}
	return r.seal(m, f)
}

// seal adds the seals of a memfd: all at once, unless it may still have to be mapped for writing.
func (r *Files) seal(m *dump.Memory, f *os.File) error {
	if m.GetKind() != dump.Memory_MEMFD {
		return nil
	}
	const late = unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SEAL
	now := int(m.GetSeals()) &^ unix.F_SEAL_EXEC
	if now&unix.F_SEAL_FUTURE_WRITE != 0 {
		now &^= late
		dup, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("memfd %s: %w", m.GetName(), err)
		}
		r.late = append(r.late, lateSeal{os.NewFile(uintptr(dup), f.Name()), int(m.GetSeals()) & late})
	}
	if now == 0 {
		return nil
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, now); err != nil {
		return fmt.Errorf("seal memfd %s with %#x: %w", m.GetName(), now, err)
	}
	return nil
}

// lateSeal is what a memfd gets when it has been mapped.
type lateSeal struct {
	file  *os.File
	seals int
}

func (r *Files) makeMemfd(s *remote.Script, m *dump.Memory, fd int) {
	flags := unix.MFD_ALLOW_SEALING
	if m.GetSeals()&unix.F_SEAL_EXEC != 0 {
		flags |= unix.MFD_NOEXEC_SEAL
	}
	b := s.Room(1024 + len(m.GetName()))
	b.Call("memfd_create "+m.GetName(), unix.SYS_MEMFD_CREATE, b.String(m.GetName()), flags)
	r.Settle(b, fd)
}

// makeAnonymous makes shared anonymous memory: it has no descriptor but through the map_files of a process that maps it.
func (r *Files) makeAnonymous(ctx context.Context, s *remote.Script, m *dump.Memory, fd int) error {
	size := (m.GetSize() + 4095) &^ 4095
	if size == 0 {
		return errors.New("shared memory of no size")
	}
	b := s.Room(1024)
	mapped := b.Call("map shared memory", unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, -1, 0)
	if err := s.Run(); err != nil {
		return err
	}
	at, err := b.Value(mapped)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/proc/%d/map_files/%x-%x", r.pid, at, uint64(at)+size)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.m.Give(ctx, f, fd); err != nil {
		return err
	}
	s.Call("unmap shared memory", unix.SYS_MUNMAP, at, size)
	return nil
}

// makeDeleted makes a file or directory that has no name any more, as near to where it was as there is a directory.
func (r *Files) makeDeleted(s *remote.Script, m *dump.Memory, fd int) error {
	if err := object.CheckPath(m.GetName()); err != nil {
		return err
	}
	r.Amid(s, path.Dir(m.GetName()), func(dir string) {
		name := path.Join(dir, path.Base(m.GetName()))
		switch {
		case m.GetKind() == dump.Memory_DIRECTORY:
			r.OpenAside(s, name, unix.O_RDONLY|unix.O_DIRECTORY, fd, func(b *remote.Batch, at remote.Address) {
				b.Call("make directory "+name, unix.SYS_MKDIRAT, unix.AT_FDCWD, at, 0o700)
			})
		case strings.HasPrefix(path.Base(name), "#") && r.openUnnamed(s, dir, fd): // so the kernel calls one that never had a name
		default:
			r.OpenAside(s, name, unix.O_RDWR, fd, func(b *remote.Batch, at remote.Address) {
				b.Call("create "+name, unix.SYS_MKNODAT, unix.AT_FDCWD, at, unix.S_IFREG|0o600, 0)
			})
		}
	})
	return nil
}

// openUnnamed opens a file without a name, where the file system has such.
func (r *Files) openUnnamed(s *remote.Script, dir string, fd int) bool {
	b := s.Room(1024 + len(dir))
	made := b.Try("open a file without a name in "+dir, unix.SYS_OPENAT, unix.AT_FDCWD, b.String(dir), unix.O_RDWR|unix.O_TMPFILE, 0o600)
	if s.Run() != nil {
		return false // the script keeps it
	}
	if _, err := b.Value(made); err != nil {
		return false
	}
	r.Settle(s.Room(1024), fd)
	return true
}

// restoreMemoryFile makes an open file description of a memfd or deleted file.
func (r *Files) restoreMemoryFile(s *remote.Script, file *dump.File) error {
	m, ok := r.memories[file.GetMemory()]
	if !ok {
		return fmt.Errorf("there is no memory %d", file.GetMemory())
	}
	fd := r.fds[file.GetId()]
	if !m.used && file.GetFlags()&(unix.O_ACCMODE|unix.O_PATH) == unix.O_RDWR {
		m.used = true
		s.Call("dup3", unix.SYS_DUP3, m.fd, fd, 0)
	} else {
		r.Open(s, FDPath(m.fd), OpenFlags(file.GetFlags())&^unix.O_NOFOLLOW, fd)
	}
	if file.GetPos() != 0 && file.GetFlags()&unix.O_PATH == 0 {
		s.Call("seek", unix.SYS_LSEEK, fd, file.GetPos(), unix.SEEK_SET)
	}
	return nil
}
