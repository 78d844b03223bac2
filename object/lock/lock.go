// Package lock has the locks of open files: flock(2), POSIX and open file description locks, leases (fcntl(2)).
//
// They are dumped from fdinfo, and taken again by who took them: most when that has its final descriptors.
package lock

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// Parse reads a lock as fdinfo shows it (proc_locks(5)):
//
//	1: POSIX  ADVISORY  WRITE 359 08:01:11691 0 EOF
//
// inside tells a pid inside; table is the FdTable record of the descriptor, which owns a POSIX lock.
func Parse(line string, inside func(pid int) int, table uint64) (*dump.Lock, error) {
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
		lock.Pid = uint32(inside(pid))
		return lock, nil
	case "POSIX":
		lock.Kind = dump.Lock_POSIX
		lock.Pid, lock.FdTable = uint32(inside(pid)), table
	case "OFDLCK":
		lock.Kind = dump.Lock_OFD
	case "LEASE":
		return parseLease(f[2], f[3], inside(pid))
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

// Locks are the locks of the open files of a set.
type Locks struct {
	set     *object.Set
	pid     int // of the maker, here
	byTaker map[uint32][]locked
	posix   map[uint64][]owned // by FdTable record
}

// New returns locks that are to be taken. pid is the maker's, here.
func New(set *object.Set, pid int) *Locks {
	return &Locks{set, pid, make(map[uint32][]locked), make(map[uint64][]owned)}
}

// locked is a lock that a process takes, and the File record of what it is on.
type locked struct {
	file uint64
	lock *dump.Lock
}

// owned is a lock that a table of descriptors owns.
type owned struct {
	locked
	taker uint32 // 0: it is gone
}

// Restore takes the locks of an open file at a descriptor of the maker, but for those that processes are to take. /proc/locks names who
// has taken a lock, even one that belongs to the open file.
func (r *Locks) Restore(s *remote.Script, f *dump.File, fd int) {
	for _, lock := range f.GetLocks() {
		if lock.GetKind() == dump.Lock_LEASE {
			pid := r.holder(f.GetId(), lock.GetPid())
			r.byTaker[pid] = append(r.byTaker[pid], locked{f.GetId(), lock})
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
			l := owned{locked: locked{f.GetId(), lock}}
			if living && r.holds(taker, table) {
				l.taker = taker.GetPid()
			}
			r.posix[table] = append(r.posix[table], l)
		case lock.GetKind() == dump.Lock_FLOCK && living:
			r.byTaker[lock.GetPid()] = append(r.byTaker[lock.GetPid()], locked{f.GetId(), lock})
		default:
			take(s, fd, lock)
		}
	}
}

// holds tells whether a process, or one of its threads, has a table.
func (r *Locks) holds(p *dump.Process, table uint64) bool {
	return p.GetFdTable() == table || slices.ContainsFunc(p.GetThreads(), func(tid uint32) bool {
		return r.set.Threads[uint64(tid)].GetFdTable() == table
	})
}

func take(s *remote.Script, fd int, lock *dump.Lock) {
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

// TakeFlocks lets a process, by its pid inside, take the locks of open files that it took: it still has the maker's descriptors, where
// each File record is at fds.
func (r *Locks) TakeFlocks(s *remote.Script, pid uint32, fds map[uint64]int) {
	for _, l := range r.byTaker[pid] {
		if l.lock.GetKind() == dump.Lock_FLOCK {
			take(s, fds[l.file], l.lock)
		}
	}
}

// TakeLocks lets a stub take the locks that a table owns, and that process pid took; 0: those of processes that are gone. It has its
// final descriptors: closing any that is open on a file would drop the table's locks there (fcntl(2)).
func (r *Locks) TakeLocks(s *remote.Script, pid uint32, table *dump.FdTable) {
	for _, l := range r.posix[table.GetId()] {
		if l.taker != pid {
			continue
		}
		for _, fd := range table.GetFds() {
			if fd.GetFile() == l.file {
				take(s, int(fd.GetFd()), l.lock)
				break
			}
		}
	}
}

func flock(b *remote.Batch, lock *dump.Lock) remote.Address {
	kind := int16(unix.F_RDLCK)
	if lock.GetWrite() {
		kind = unix.F_WRLCK
	}
	return object.Place(b, &unix.Flock_t{Type: kind, Start: lock.GetStart(), Len: lock.GetLen()})
}
