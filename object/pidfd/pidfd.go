// Package pidfd has the descriptors of processes and threads, pidfd_open(2).
//
// One of a task that is there is opened when all have been born. One of a process that is gone is opened on another that ends in the
// same way; descriptors of one process stay so, which their inodes show.
package pidfd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// dumper dumps the pidfds of an instance.
type dumper struct {
	*file.Descriptors
	gone  map[uint64]uint64 // numbers of processes that are gone, by the inodes of their pidfds
	count uint64
}

// NewDumper makes the pidfds' part of a dump.
func NewDumper(d *file.Descriptors) file.Dumper {
	return &dumper{Descriptors: d, gone: make(map[uint64]uint64)}
}

// Claims claims all pidfds, and refuses those of processes outside.
func (d *dumper) Claims(l *file.Look) (bool, error) {
	if l.Link != "anon_inode:[pidfd]" && !strings.HasPrefix(l.Link, "pidfd:[") {
		return false, nil
	}
	_, err := d.target(l)
	return true, err
}

// target returns the pid inside of a pidfd's task; 0: it is gone.
func (d *dumper) target(l *file.Look) (int, error) {
	host, err := strconv.Atoi(l.Line("Pid"))
	if err != nil {
		return 0, fmt.Errorf("fdinfo of pidfd: Pid: %w", err)
	}
	if host < 0 {
		return 0, nil
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", d.Init()))
	if err != nil {
		return 0, err
	}
	// A pidfd of a task that ends meanwhile says so the next time.
	if its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", host)); host == 0 || err == nil && its != own {
		return 0, l.At.Refusal("pidfd", "of a process outside of the instance")
	}
	ids := strings.Fields(l.Line("NSpid"))
	if len(ids) == 0 {
		return 0, fmt.Errorf("fdinfo of pidfd: no NSpid")
	}
	return strconv.Atoi(ids[len(ids)-1])
}

// Dump notes the task, or how it ended.
func (d *dumper) Dump(f *file.OpenFile, l *file.Look) error {
	pid, err := d.target(l)
	if err != nil {
		return err
	}
	record := &dump.PidFd{Pid: uint32(pid)}
	f.Record.Kind = &dump.File_Pidfd{Pidfd: record}
	if pid != 0 {
		return nil
	}
	record.Gone = d.number(l)
	if info, err := linux.GetPidfdInfo(l.FD, linux.PIDFD_INFO_EXIT); err == nil && info.Mask&linux.PIDFD_INFO_EXIT != 0 {
		record.WaitStatus = info.ExitCode
	}
	return nil
}

// number gives a process that is gone a number. Before Linux 6.9 all pidfds had one inode.
func (d *dumper) number(l *file.Look) uint64 {
	known, ok := d.gone[l.Stat.Ino]
	if ok && l.FS() == unix.PID_FS_MAGIC {
		return known
	}
	d.count++
	d.gone[l.Stat.Ino] = d.count
	return d.count
}

// Finish has nothing left to do.
func (d *dumper) Finish() error { return nil }

// restorer restores the pidfds of a set.
type restorer struct{ *file.Files }

// NewRestorer makes the pidfds' part of a restore.
func NewRestorer(files *file.Files) file.Restorer { return &restorer{files} }

// Claims claims all pidfds.
func (r *restorer) Claims(f *dump.File) bool { return f.GetPidfd() != nil }

// Make makes the pidfds of processes that are gone.
func (r *restorer) Make(s *remote.Script) error {
	gone := make(map[uint64][]*dump.File)
	for _, f := range object.Sorted(r.Set().Files) {
		if r.Claims(f) && f.GetPidfd().GetPid() == 0 {
			gone[f.GetPidfd().GetGone()] = append(gone[f.GetPidfd().GetGone()], f)
		}
	}
	for _, number := range object.SortedIDs(gone) {
		if err := r.makeGone(s, gone[number]); err != nil {
			return file.Named(fmt.Sprintf("file %d", gone[number][0].GetId()), err)
		}
	}
	return nil
}

// makeGone makes the pidfds of a process that is gone: on a child of the maker, which is a zombie meanwhile.
func (r *restorer) makeGone(s *remote.Script, files []*dump.File) error {
	status := files[0].GetPidfd().GetWaitStatus()
	slot, pid := r.Maker().Child, r.Set().Known(0)
	if slot == nil || !object.Deadly(status) {
		return fmt.Errorf("no process can end with wait status %#x", status)
	}
	if err := s.Run(); err != nil {
		return err
	}
	end := slot.Batch()
	object.Expire(end, pid, status)
	if err := end.Start(); err != nil {
		return err
	}
	b := s.Room(2048)
	b.Clone("make a process that ends", remote.CloneArgs{Slot: slot, SetTID: []int{pid}})
	b.Call("wait for its end", unix.SYS_WAITID, unix.P_PID, pid, 0, unix.WEXITED|unix.WNOWAIT|unix.WALL, 0)
	for _, f := range files {
		fd, err := r.FD(f.GetId())
		if err != nil {
			return err
		}
		r.open(s, f, pid, fd)
	}
	s.Call("forget it", unix.SYS_WAIT4, pid, 0, unix.WALL, 0)
	return s.Run()
}

func (r *restorer) open(s *remote.Script, f *dump.File, pid, fd int) {
	const thread = unix.O_EXCL // PIDFD_THREAD, include/uapi/linux/pidfd.h
	b := s.Room(512)
	b.Call(fmt.Sprintf("pidfd_open %d", pid), unix.SYS_PIDFD_OPEN, pid, f.GetFlags()&thread)
	r.Settle(b, fd)
}

// Restore opens the pidfd of a task that is going to be there.
func (r *restorer) Restore(_ *remote.Script, f *dump.File, _ int) error {
	pid := f.GetPidfd().GetPid()
	if pid == 0 {
		return nil
	}
	if r.Set().Processes[uint64(pid)] == nil && r.Set().Threads[uint64(pid)] == nil {
		return fmt.Errorf("pidfd of process %d, which is not there", pid)
	}
	r.Postpone(f, func(s *remote.Script, fd int) { r.open(s, f, int(pid), fd) })
	return nil
}

// Needs counts nothing: there are no objects behind the files.
func (r *restorer) Needs() int { return 0 }

// Finish has nothing left to do.
func (r *restorer) Finish(context.Context, *remote.Script) error { return nil }

// Close has nothing to close.
func (r *restorer) Close() error { return nil }
