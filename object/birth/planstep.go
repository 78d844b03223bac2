package birth

import (
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// Add turns a step of process self (nil: a helper, or 0) into system calls of its stub. slot gives the slot of the stub
// that is to be born.
//
// After an Exit or a Die the stub does not report the end of its batch: the Reap or Await of its parent, in the same stage,
// tells. When process 0 waits, PID is to be the child's pid where that stub is.
func (s Step) Add(b *remote.Batch, self *dump.Process, slot func(pid int) *remote.Page) {
	switch s.Op {
	case Birth:
		b.Clone("clone", remote.CloneArgs{Slot: slot(s.PID), Flags: s.Share, ExitSignal: unix.SIGCHLD, SetTID: []int{s.PID}})
	case BirthSibling: // with the signal of its brother
		b.Clone("clone a sibling", remote.CloneArgs{Slot: slot(s.PID), Flags: unix.CLONE_PARENT | s.Share, SetTID: []int{s.PID}})
	case Setsid:
		b.Call("setsid", unix.SYS_SETSID)
	case LeadGroup:
		b.Call("lead a process group", unix.SYS_SETPGID, 0, 0)
	case JoinGroup:
		b.Call("join a process group", unix.SYS_SETPGID, 0, s.PID)
	case StartReaping:
		b.Call("become a subreaper", unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	case StopReaping:
		b.Call("be no subreaper", unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	case Exit:
		b.Call("exit", unix.SYS_EXIT_GROUP, 0)
	case Reap:
		b.Call("wait for a helper", unix.SYS_WAIT4, s.PID, 0, unix.WALL, 0)
	case Die:
		object.Expire(b, int(self.GetPid()), self.GetWaitStatus())
	case Await:
		b.Call("wait for a zombie", unix.SYS_WAITID, unix.P_PID, s.PID, 0, unix.WEXITED|unix.WNOWAIT|unix.WALL, 0)
	}
}
