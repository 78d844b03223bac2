package object

import (
	"golang.org/x/sys/unix"

	"vps/remote"
)

// Author is whom the kernel is to take for the maker of an object, for as long as that shows it: SO_PEERCRED of a connection
// (unix(7)), the creator of a System V object (svipc(7)).
type Author struct {
	PID      int // 1 is the maker itself
	UID, GID uint32
}

// defaultMaxPID is above the pids that every kernel gives (PID_MAX_DEFAULT, include/linux/threads.h).
const defaultMaxPID = 1 << 15

// Known returns a pid of a record; in place of one that is not known, 0, that of nobody.
func (s *Set) Known(pid uint32) int {
	if pid != 0 {
		return int(pid)
	}
	for free := uint64(defaultMaxPID - 1); ; free-- {
		if s.Processes[free] == nil && s.Threads[free] == nil {
			return int(free)
		}
	}
}

// As adds calls to a maker's script that an author makes: a child with its pid, which no process has at that time, and
// its ids. Rights over files stay root's. The results are in the batch that is returned.
func (m *Maker) As(s *remote.Script, a Author, calls func(b *remote.Batch)) *remote.Batch {
	if a.PID == 1 || m.Child == nil {
		b := s.Room(4096)
		a.become(b, calls)
		return b
	}
	return s.Child(m.Child, a.PID, func(b *remote.Batch) { a.become(b, calls) })
}

func (a Author) become(b *remote.Batch, calls func(b *remote.Batch)) {
	if a.UID == 0 && a.GID == 0 {
		calls(b)
		return
	}
	const same = ^uint32(0)
	b.Try("become group of author", unix.SYS_SETRESGID, same, a.GID, same)
	b.Try("become user of author", unix.SYS_SETRESUID, same, a.UID, same)
	b.Try("keep rights over files", unix.SYS_SETFSUID, 0)
	calls(b)
	b.Call("become root", unix.SYS_SETRESUID, same, 0, same)
	b.Call("become group 0", unix.SYS_SETRESGID, same, 0, same)
	b.Call("set dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}
