package lock

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// parseLease reads the rest of a line like
//
//	1: LEASE  BREAKING  READ  359 08:01:11691 0 EOF
//
// One that is being broken shows as what it is to become.
func parseLease(state, kind string, taker int) (*dump.Lock, error) {
	lock := &dump.Lock{Kind: dump.Lock_LEASE, Write: kind == "WRITE", Pid: uint32(taker)}
	switch {
	case state == "ACTIVE":
	case state == "BREAKING" && kind == "READ":
		lock.Breaking, lock.Write = dump.Lock_TO_READ, true
	case state == "BREAKING":
		lock.Breaking = dump.Lock_TO_NONE
	default:
		return nil, fmt.Errorf("%s lease: %w", strings.ToLower(state), object.ErrUnsupported)
	}
	return lock, nil
}

// holder returns the process that is to take a lease: it has a descriptor of the file. Mostly that is who took it.
func (r *Locks) holder(file uint64, taker uint32) uint32 {
	holds := func(p *dump.Process) bool {
		return slices.ContainsFunc(r.set.FdTables[p.GetFdTable()].GetFds(), func(fd *dump.Fd) bool { return fd.GetFile() == file })
	}
	if holds(r.set.Processes[uint64(taker)]) {
		return taker
	}
	for _, p := range object.Sorted(r.set.Processes) {
		if holds(p) {
			return p.GetPid()
		}
	}
	return 0
}

// HasLeases tells whether a process is to call [Locks.TakeLeases].
func (r *Locks) HasLeases(pid uint32) bool {
	return slices.ContainsFunc(r.byTaker[pid], func(l locked) bool { return l.lock.GetKind() == dump.Lock_LEASE })
}

// TakeLeases lets a process, by its pid here and its record, take leases. All processes have their final descriptors: any other one
// would be in the way (fcntl(2), F_SETLEASE).
func (r *Locks) TakeLeases(s *remote.Script, host int, p *dump.Process) error {
	for _, l := range r.byTaker[p.GetPid()] {
		fds := r.set.FdTables[p.GetFdTable()].GetFds()
		at := slices.IndexFunc(fds, func(fd *dump.Fd) bool { return fd.GetFile() == l.file })
		if l.lock.GetKind() != dump.Lock_LEASE || at < 0 {
			continue
		}
		s.About("file %d", l.file)
		if err := r.takeLease(s, host, int(fds[at].GetFd()), r.set.Files[l.file], l.lock); err != nil {
			return fmt.Errorf("file %d: lease: %w", l.file, err)
		}
	}
	return s.Run()
}

func (r *Locks) takeLease(s *remote.Script, host, fd int, f *dump.File, lock *dump.Lock) error {
	var st unix.Stat_t
	name := fmt.Sprintf("/proc/%d/fd/%d", host, fd)
	if err := unix.Stat(name, &st); err != nil {
		return err
	}
	ids, err := object.ReadIDMaps(r.pid)
	if err != nil {
		return err
	}
	owner, err := ids.UID(st.Uid)
	if err != nil {
		return err
	}
	kind := unix.F_RDLCK
	if lock.GetWrite() || f.GetFlags()&unix.O_ACCMODE != unix.O_RDONLY {
		kind = unix.F_WRLCK
	}
	// Nobody else may: who has CAP_LEASE inside does not have it on the host.
	s.Call("become the file's owner", unix.SYS_SETFSUID, owner)
	s.Call("take lease", unix.SYS_FCNTL, fd, unix.F_SETLEASE, kind)
	s.Call("become root", unix.SYS_SETFSUID, 0)
	if lock.GetBreaking() != dump.Lock_NOT {
		object.SetOwner(s, fd, nil) // who is to give it up has been told
		if err := s.Run(); err != nil {
			return err
		}
		if err := breakLease(name, lock.GetBreaking()); err != nil {
			return err
		}
	}
	object.SetOwner(s, fd, f.GetOwner()) // taking it has made the stub the owner, if there was none
	return nil
}

// breakLease wants to open a file, and does not wait until it may.
func breakLease(name string, become dump.Lock_Breaking) error {
	flags := unix.O_WRONLY
	if become == dump.Lock_TO_READ {
		flags = unix.O_RDONLY
	}
	fd, err := unix.Open(name, flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	switch {
	case err == unix.EAGAIN:
		return nil
	case err != nil:
		return fmt.Errorf("break it: %w", err)
	}
	unix.Close(fd)
	return fmt.Errorf("nothing is to be broken")
}
