package task

import (
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

const noLogin = math.MaxUint32 // AUDIT_UID_UNSET, include/linux/audit.h

// DumpAttributes adds to the record of a process, by its pid here, what has files of its own in /proc: who has logged in, and what
// of its memory is written to a core dump.
func DumpAttributes(p *dump.Process, pid int, ids object.IDMaps) error {
	filter, err := object.ReadInt(pid, "coredump_filter", 16)
	if err != nil {
		return err
	}
	p.CoredumpFilter = proto.Uint32(uint32(filter))
	login, err := object.ReadInt(pid, "loginuid", 10)
	if object.Vanished(err) {
		return nil // this kernel has no audit
	}
	if err != nil || login == noLogin {
		return err
	}
	if uid, err := ids.UID(uint32(login)); err == nil {
		p.LoginUid = proto.Uint32(uid)
	}
	return nil
}

// RestoreCoredumpFilter sets what of a stub's memory is written to a core dump, from outside, by its pid here.
func RestoreCoredumpFilter(pid int, p *dump.Process) error {
	if p.CoredumpFilter == nil {
		return nil
	}
	name := "/proc/" + strconv.Itoa(pid) + "/coredump_filter"
	return os.WriteFile(name, fmt.Appendf(nil, "%#x", p.GetCoredumpFilter()), 0)
}

// RestoreLoginUID lets a stub, by its pid here, say who has logged in; its threads are not born yet. fd is its lowest free
// descriptor, and its root is the instance's. Where the audit system does not allow it, that is an error.
func RestoreLoginUID(s *remote.Script, pid int, p *dump.Process, ids object.IDMaps, fd int) error {
	if p.LoginUid == nil {
		return nil
	}
	own, err := object.ReadInt(pid, "loginuid", 10)
	if err != nil {
		return err
	}
	if uid, err := ids.UID(uint32(own)); own != noLogin && err == nil && uid == p.GetLoginUid() {
		return nil
	}
	const name = "/proc/self/loginuid"
	text := strconv.FormatUint(uint64(p.GetLoginUid()), 10)
	b := s.Room(1024)
	// The files of a process that cannot be traced belong to the host's root (proc(5)).
	b.Call("set dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	b.Call("open "+name, unix.SYS_OPENAT, unix.AT_FDCWD, b.String(name), unix.O_WRONLY, 0)
	b.Call("set login user id "+text, unix.SYS_WRITE, fd, b.Data([]byte(text)), len(text))
	b.Call("close "+name, unix.SYS_CLOSE, fd)
	b.Call("set undumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	return s.Run()
}

// ioPriorityOf is IOPRIO_WHO_PROCESS of include/uapi/linux/ioprio.h.
const ioPriorityOf = 1

// dumpIOPriority reads the priority of a thread's input and output, by its tid here (ioprio_set(2)).
func dumpIOPriority(tid int) (uint32, error) {
	priority, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioPriorityOf, uintptr(tid), 0)
	if errno != 0 {
		return 0, fmt.Errorf("get io priority: %w", errno)
	}
	return uint32(priority), nil
}

func restoreIOPriority(b *remote.Batch, t *dump.Thread) {
	if t.GetIoPriority() != 0 {
		b.Call("set io priority", unix.SYS_IOPRIO_SET, ioPriorityOf, 0, t.GetIoPriority())
	}
}
