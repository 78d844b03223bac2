package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/fdinfo"
	"vps/object/lock"
	"vps/remote"
)

// Options say how open files are restored.
type Options struct {
	Force bool   // take files that have changed
	Bound uint64 // capabilities that the instance may have
}

// Restorer restores open files of a kind that has a package of its own, and what they are open on.
type Restorer interface {
	// Needs returns how many descriptors of the maker are staged at most, beyond those of the open files.
	Needs() int
	// Make makes objects. Where the open files are going to be is known, but none is there yet.
	Make(s *remote.Script) error
	// Claims tells whether an open file is of this kind.
	Claims(f *dump.File) bool
	// Restore makes an open file that it has claimed at a descriptor of the maker.
	Restore(s *remote.Script, f *dump.File, fd int) error
	// Finish does what must wait until all open files are there.
	Finish(ctx context.Context, s *remote.Script) error
	// Close closes what it holds in our process.
	Close() error
}

// RestoreKind makes a kind's part of a restore.
type RestoreKind func(*Files) Restorer

// Files are the open file descriptions of an instance in the descriptor table of its maker, above all numbers that
// the instance uses. Processes born from the maker have them too; [Files.Install] gives each its own table.
type Files struct {
	m       *object.Maker
	set     *object.Set
	content object.Content
	opt     Options

	pid   int    // of the maker, here
	bench [2]int // the two lowest free descriptors of the maker: where open(2) and pipe(2) put what they make
	next  int    // free descriptor above all others

	allowed uint64 // how many descriptors the maker may have

	kinds    []Restorer     // those of other packages
	fds      map[uint64]int // File records
	memories map[uint64]*memory
	watches  map[uint64][]watch // by FdTable record
	locks    *lock.Locks
	checks   []func() error
	late     []lateSeal

	postponed map[uint64]func(s *remote.Script, fd int) // by File record
}

// Maker is the maker in whose descriptor table the files are.
func (r *Files) Maker() *object.Maker { return r.m }

// Bound are the capabilities that the instance may have, bit N for capability N.
func (r *Files) Bound() uint64 { return r.opt.Bound }

// PID is the maker's pid here.
func (r *Files) PID() int { return r.pid }

// TakeFlocks lets a process take the locks of open files that it took, see [lock.Locks.TakeFlocks].
func (r *Files) TakeFlocks(s *remote.Script, pid uint32) { r.locks.TakeFlocks(s, pid, r.fds) }

// Locks are those that processes are to take.
func (r *Files) Locks() *lock.Locks { return r.locks }

// Set is what is being restored.
func (r *Files) Set() *object.Set { return r.set }

// Bench are the two lowest free descriptors of the maker, lower one first: its calls put there what they make, see
// [Files.Settle].
func (r *Files) Bench() [2]int { return r.bench }

// Verify has something looked at when all open files are there.
func (r *Files) Verify(check func() error) { r.checks = append(r.checks, check) }

// maxDescriptor bounds the numbers in a snapshot: fs.nr_open's default (proc_sys_fs(5)).
const maxDescriptor = 1 << 20

// Restore makes all open file descriptions of a set in the maker, and what they are open on. The maker is root in
// the instance, has its mounts and its /proc, and no other batch runs there meanwhile.
func Restore(ctx context.Context, m *object.Maker, set *object.Set, content object.Content, opt Options, kinds ...RestoreKind) (*Files, error) {
	r := &Files{
		m: m, set: set, content: content, opt: opt,
		fds: make(map[uint64]int), memories: make(map[uint64]*memory),
		watches:   make(map[uint64][]watch),
		postponed: make(map[uint64]func(*remote.Script, int)),
	}
	for _, kind := range kinds {
		r.kinds = append(r.kinds, kind(r))
	}
	if err := r.restore(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Files) restore(ctx context.Context) (err error) {
	if err := r.number(ctx); err != nil {
		return err
	}
	if err := r.planWatches(); err != nil {
		return err
	}
	s := r.m.Page.Script(ctx, r.m.PidFD)
	for _, id := range object.SortedIDs(r.set.Memories) {
		if k := r.set.Memories[id].GetKind(); k == dump.Memory_TMPFS || k == dump.Memory_SYSV {
			continue // a named file's, a segment's
		}
		if err := r.restoreMemory(ctx, s, r.set.Memories[id]); err != nil {
			return fmt.Errorf("memory %d: %w", id, err)
		}
	}
	for _, kind := range r.kinds {
		if err := kind.Make(s); err != nil {
			return err
		}
	}
	for _, id := range object.SortedIDs(r.set.Files) {
		s.About("file %d", id)
		if err := r.restoreFile(s, r.set.Files[id]); err != nil {
			return Named(fmt.Sprintf("file %d", id), err)
		}
	}
	if err := s.Run(); err != nil {
		return err
	}
	if err := r.verify(); err != nil {
		return err
	}
	for _, kind := range r.kinds {
		if err := kind.Finish(ctx, s); err != nil {
			return err
		}
	}
	for _, id := range object.SortedIDs(r.set.Files) {
		if r.postponed[id] != nil {
			continue
		}
		s.About("file %d", id)
		r.setFlags(s, r.set.Files[id])
	}
	return s.Run()
}

func (r *Files) verify() error {
	for _, check := range r.checks {
		if err := check(); err != nil {
			return err
		}
	}
	r.checks = nil
	return nil
}

// Named says which object an error is about, unless it says so already: a script's calls do, see [remote.Script.About].
func Named(what string, err error) error {
	if strings.HasPrefix(err.Error(), what+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// number decides which descriptors of the maker the open files get.
func (r *Files) number(ctx context.Context) error {
	top := r.m.SocketFD
	for id, table := range r.set.FdTables {
		for i, fd := range table.GetFds() {
			number := int(fd.GetFd())
			if number >= maxDescriptor || i > 0 && fd.GetFd() <= table.GetFds()[i-1].GetFd() {
				return fmt.Errorf("descriptor table %d: number %d is not valid", id, number)
			}
			if r.set.Files[fd.GetFile()] == nil {
				return fmt.Errorf("descriptor table %d: descriptor %d: there is no file %d", id, number, fd.GetFile())
			}
			top = max(top, number)
		}
	}
	for id, f := range r.set.Files {
		for _, item := range f.GetEpoll().GetItems() {
			if item.GetFd() >= maxDescriptor {
				return fmt.Errorf("file %d: epoll watches %d, which is not valid", id, item.GetFd())
			}
			top = max(top, int(item.GetFd()))
		}
	}
	var err error
	if r.pid, err = pidOf(r.m.PidFD); err != nil {
		return err
	}
	r.locks = lock.New(r.set, r.pid)
	var free [2]remote.Result
	var limit func() unix.Rlimit
	var b *remote.Batch
	err = r.m.Run(ctx, func(batch *remote.Batch) {
		b = batch
		var at remote.Address
		at, limit = object.Space[unix.Rlimit](b)
		b.Call("get RLIMIT_NOFILE", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, 0, at)
		for i := range free {
			free[i] = b.Call("find a free descriptor", unix.SYS_FCNTL, 0, unix.F_DUPFD, 0)
		}
	})
	if err != nil {
		return err
	}
	for i := range free {
		v, err := b.Value(free[i])
		if err != nil {
			return err
		}
		r.bench[i] = int(v)
	}
	r.allowed = limit().Max
	r.next = max(top, r.bench[1]) + 1
	for _, id := range object.SortedIDs(r.set.Files) {
		r.fds[id] = r.Stage()
	}
	need := uint64(r.next + len(r.set.Memories))
	for _, kind := range r.kinds {
		need += uint64(kind.Needs())
	}
	if need > r.allowed {
		return fmt.Errorf("%d descriptors are needed, the limit (RLIMIT_NOFILE) is %d", need, r.allowed)
	}
	return r.m.Run(ctx, func(b *remote.Batch) {
		b.Call("raise RLIMIT_NOFILE", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, b.Words(r.allowed, r.allowed), 0)
		for _, fd := range r.bench {
			b.Call("close", unix.SYS_CLOSE, fd)
		}
	})
}

// Stage takes a descriptor of the maker that no process will have.
func (r *Files) Stage() int {
	r.next++
	return r.next - 1
}

// Settle moves what the last call has made from the bench to its places.
func (r *Files) Settle(b *remote.Batch, places ...int) {
	for i, fd := range places {
		b.Call("dup3", unix.SYS_DUP3, r.bench[i], fd, 0)
		b.Call("close", unix.SYS_CLOSE, r.bench[i])
	}
}

// Open opens a path in the maker at a descriptor.
func (r *Files) Open(s *remote.Script, path string, flags uint32, fd int) {
	b := s.Room(len(path) + 512)
	b.Call("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD, b.String(path), flags, 0)
	r.Settle(b, fd)
}

// FDPath is the path by which the maker opens one of its files once more.
func FDPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func (r *Files) restoreFile(s *remote.Script, f *dump.File) error {
	for _, kind := range r.kinds {
		if kind.Claims(f) {
			return kind.Restore(s, f, r.fds[f.GetId()])
		}
	}
	switch f.GetKind().(type) {
	case *dump.File_Path:
		return r.restorePath(s, f, f.GetPath())
	case *dump.File_Epoll:
		r.restoreEpoll(s, f)
	case *dump.File_Memory:
		return r.restoreMemoryFile(s, f)
	case *dump.File_External:
		e := f.GetExternal()
		return fmt.Errorf("external %q of type %#o: %w", e.GetWhat(), e.GetType(), object.ErrUnsupported)
	default:
		return fmt.Errorf("a kind of file that this version does not know: %w", object.ErrUnsupported)
	}
	return nil
}

// setFlags gives an open file description the flags that fcntl(2) can change, and its locks.
func (r *Files) setFlags(s *remote.Script, f *dump.File) {
	if f.GetFlags()&unix.O_PATH != 0 {
		return
	}
	const settable = unix.O_APPEND | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_DIRECT
	fd := r.fds[f.GetId()]
	s.Call("set file flags", unix.SYS_FCNTL, fd, unix.F_SETFL, f.GetFlags()&settable)
	r.locks.Restore(s, f, fd)
}

// FD returns the maker's descriptor of a File record; it goes when [Files.Install] runs.
func (r *Files) FD(id uint64) (int, error) {
	fd, ok := r.fds[id]
	if !ok {
		return -1, fmt.Errorf("there is no file %d", id)
	}
	return fd, nil
}

// SetOwners lets the open files send their signals to whom they did. All open files, processes and threads are there; the
// maker has not installed a table of its own yet.
func (r *Files) SetOwners(ctx context.Context) error {
	s := r.m.Page.Script(ctx, r.m.PidFD)
	for _, id := range object.SortedIDs(r.set.Files) {
		f := r.set.Files[id]
		owner, fd := f.GetOwner(), r.fds[id]
		s.About("file %d", id)
		if owner != nil {
			object.SetOwner(s, fd, owner)
			s.Call("F_SETSIG", unix.SYS_FCNTL, fd, unix.F_SETSIG, owner.GetSignal())
		}
		if f.GetFlags()&unix.O_ASYNC != 0 {
			s.Call("set O_ASYNC", unix.SYS_FCNTL, fd, unix.F_SETFL, f.GetFlags()&(unix.O_ASYNC|unix.O_APPEND|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_DIRECT))
		}
	}
	return s.Run()
}

// Install gives a process born from the maker, whose script s is, the descriptors of a table and no others. Its memory is mapped,
// and what [Files.OpenPath] opened is not needed any more, by none of those who share the table with it. [lock.Locks.TakeFlocks]
// has come before for all of these, [lock.Locks.TakeLocks] follows.
func (r *Files) Install(s *remote.Script, table *dump.FdTable) error {
	for _, fd := range table.GetFds() {
		if _, ok := r.fds[fd.GetFile()]; !ok {
			return fmt.Errorf("descriptor %d: there is no file %d", fd.GetFd(), fd.GetFile())
		}
		r.install(s.Room(128), fd)
	}
	if err := r.watchAgain(s, table); err != nil {
		return err
	}
	next := 0
	for _, fd := range table.GetFds() {
		if number := int(fd.GetFd()); number > next {
			s.Call("close_range", unix.SYS_CLOSE_RANGE, next, number-1, 0)
		}
		next = int(fd.GetFd()) + 1
	}
	s.Call("close_range", unix.SYS_CLOSE_RANGE, next, ^uint32(0), 0)
	return nil
}

func (r *Files) install(b *remote.Batch, fd *dump.Fd) {
	flags := 0
	if fd.GetCloexec() {
		flags = unix.O_CLOEXEC
	}
	b.Call(fmt.Sprintf("install descriptor %d", fd.GetFd()), unix.SYS_DUP3, r.fds[fd.GetFile()], fd.GetFd(), flags)
}

// Finish does what must wait until every process has mapped its memory and has its descriptors.
func (r *Files) Finish() error {
	for _, l := range r.late {
		if _, err := unix.FcntlInt(l.file.Fd(), unix.F_ADD_SEALS, l.seals); err != nil {
			return fmt.Errorf("seal memfd with %#x: %w", l.seals, err)
		}
	}
	return r.complete()
}

// Close closes what r holds in our process. The maker's descriptors are its own.
func (r *Files) Close() error {
	var errs []error
	for _, l := range r.late {
		errs = append(errs, l.file.Close())
	}
	for _, kind := range r.kinds {
		errs = append(errs, kind.Close())
	}
	r.late = nil
	return errors.Join(errs...)
}

// pidOf returns the process of a pidfd, by its pid here.
func pidOf(pidfd int) (int, error) {
	info, err := fdinfo.Read(os.Getpid(), pidfd)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(info.Line("Pid"))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("pidfd %d: its process has pid %q here", pidfd, info.Line("Pid"))
	}
	return pid, nil
}
