package file

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// addLocks notes the locks that fdinfo shows (proc_locks(5)):
//
//	1: POSIX  ADVISORY  WRITE 359 08:01:11691 0 EOF
//
// Those of a process show at its own descriptors only; the others at every descriptor of the open file.
func (d *Descriptors) addLocks(f *OpenFile, info *fdinfo) error {
	for _, line := range info.lines {
		if line.key != "lock" {
			continue
		}
		lock, err := d.lock(line.value)
		if err != nil {
			return fmt.Errorf("lock %q on %s: %w", line.value, f.Link, err)
		}
		same := func(l *dump.Lock) bool { return proto.Equal(l, lock) }
		if !slices.ContainsFunc(f.Record.Locks, same) {
			f.Record.Locks = append(f.Record.Locks, lock)
		}
	}
	return nil
}

func (d *Descriptors) lock(line string) (*dump.Lock, error) {
	f := strings.Fields(line)
	if len(f) != 8 {
		return nil, fmt.Errorf("%d fields", len(f))
	}
	pid, err := strconv.Atoi(f[4])
	if err != nil {
		return nil, err
	}
	lock := &dump.Lock{Write: f[3] == "WRITE"}
	switch f[1] {
	case "FLOCK":
		lock.Pid = uint32(d.Inside(pid))
		return lock, nil
	case "POSIX":
		lock.Kind = dump.Lock_POSIX
		lock.Pid, lock.FdTable = uint32(d.Inside(pid)), d.table
	case "OFDLCK":
		lock.Kind = dump.Lock_OFD
	case "LEASE":
		return d.lease(f[2], f[3], pid)
	default:
		return nil, fmt.Errorf("%s: %w", f[1], object.ErrUnsupported)
	}
	if lock.Start, err = strconv.ParseInt(f[6], 10, 64); err != nil {
		return nil, err
	}
	if f[7] == "EOF" {
		return lock, nil
	}
	end, err := strconv.ParseInt(f[7], 10, 64)
	lock.Len = end - lock.Start + 1
	return lock, err
}

// restoreLocks takes the locks of an open file, but for those that processes are to take. /proc/locks names who has taken a
// lock, even one that belongs to the open file.
func (r *Files) restoreLocks(s *remote.Script, f *dump.File) {
	for _, lock := range f.GetLocks() {
		if lock.GetKind() == dump.Lock_LEASE {
			pid := r.holder(f.GetId(), lock.GetPid())
			r.locks[pid] = append(r.locks[pid], lockedFile{f.GetId(), lock})
			continue
		}
		taker := r.set.Processes[uint64(lock.GetPid())]
		living := taker != nil && taker.GetState() != dump.Process_ZOMBIE
		switch {
		case lock.GetKind() == dump.Lock_POSIX:
			table := lock.GetFdTable()
			if table == 0 {
				table = taker.GetFdTable()
			}
			owned := ownedLock{lockedFile: lockedFile{f.GetId(), lock}}
			if living && r.holds(taker, table) {
				owned.taker = taker.GetPid()
			}
			r.posix[table] = append(r.posix[table], owned)
		case lock.GetKind() == dump.Lock_FLOCK && living:
			r.locks[lock.GetPid()] = append(r.locks[lock.GetPid()], lockedFile{f.GetId(), lock})
		default:
			takeLock(s, r.fds[f.GetId()], lock)
		}
	}
}

// holds tells whether a process, or one of its threads, has a table.
func (r *Files) holds(p *dump.Process, table uint64) bool {
	return p.GetFdTable() == table || slices.ContainsFunc(p.GetThreads(), func(tid uint32) bool {
		return r.set.Threads[uint64(tid)].GetFdTable() == table
	})
}

func takeLock(s *remote.Script, fd int, lock *dump.Lock) {
	b := s.Room(256)
	switch lock.GetKind() {
	case dump.Lock_POSIX:
		b.Call("take file lock", unix.SYS_FCNTL, fd, unix.F_SETLK, flock(b, lock))
	case dump.Lock_OFD:
		b.Call("take file lock", unix.SYS_FCNTL, fd, unix.F_OFD_SETLK, flock(b, lock))
	case dump.Lock_FLOCK:
		how := unix.LOCK_SH
		if lock.GetWrite() {
			how = unix.LOCK_EX
		}
		b.Call("flock", unix.SYS_FLOCK, fd, how|unix.LOCK_NB)
	}
}

// TakeFlocks lets a process, which still has the maker's descriptors, take the locks of open files that it took. pid is its pid inside.
func (r *Files) TakeFlocks(s *remote.Script, pid uint32) {
	for _, l := range r.locks[pid] {
		if l.lock.GetKind() == dump.Lock_FLOCK {
			takeLock(s, r.fds[l.file], l.lock)
		}
	}
}

// TakeLocks lets a stub take the locks that a table owns, and that process pid took; 0: those of processes that are gone. It has its
// final descriptors: closing any that is open on a file would drop the table's locks there (fcntl(2)).
func (r *Files) TakeLocks(s *remote.Script, pid uint32, table *dump.FdTable) {
	for _, l := range r.posix[table.GetId()] {
		if l.taker != pid {
			continue
		}
		for _, fd := range table.GetFds() {
			if fd.GetFile() == l.file {
				takeLock(s, int(fd.GetFd()), l.lock)
				break
			}
		}
	}
}

// ownedLock is a lock that a table of descriptors owns.
type ownedLock struct {
	lockedFile
	taker uint32 // 0: it is gone
}

// lockedFile is a lock that a process takes.
type lockedFile struct {
	file uint64
	lock *dump.Lock
}

func flock(b *remote.Batch, lock *dump.Lock) remote.Address {
	kind := int16(unix.F_RDLCK)
	if lock.GetWrite() {
		kind = unix.F_WRLCK
	}
	return object.Place(b, &unix.Flock_t{Type: kind, Start: lock.GetStart(), Len: lock.GetLen()})
}
