package object

import (
	"golang.org/x/sys/unix"

	"vps/remote"
)

// Deadly tells whether a process can end with a wait status (wait(2)): an exit, or a signal whose default action ends
// it (signal(7)).
func Deadly(status uint32) bool {
	const coreDumped = 0x80
	signal := status & 0x7f
	switch {
	case signal == 0:
		return status&^0xff00 == 0
	case status&^(coreDumped|0x7f) != 0 || signal == 0x7f:
		return false
	}
	switch signal {
	case 17, 18, 19, 20, 21, 22, 23, 28: // CHLD CONT STOP TSTP TTIN TTOU URG WINCH
		return false
	}
	return signal <= 64
}

// Expire ends the stub of a process with a wait status, which is [Deadly]. No core is dumped.
func Expire(b *remote.Batch, pid int, status uint32) {
	signal := status & 0x7f
	if signal == 0 {
		b.Call("exit", unix.SYS_EXIT_GROUP, status>>8)
		return
	}
	b.Call("dump no core", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, b.Words(0, 0), 0)
	b.Call("get ready to die", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, b.Words(0), 0, 8)
	b.Call("die", unix.SYS_KILL, pid, signal)
}
