package file

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// Postpone leaves an open file to [Files.MakePostponed]: it is of a process or a thread, and there is none yet.
func (r *Files) Postpone(f *dump.File, make func(s *remote.Script, fd int)) {
	r.postponed[f.GetId()] = make
}

// Holder is a stub with the maker's descriptors that is to install a table.
type Holder struct {
	Maker *object.Maker
	Table uint64
	Name  string // for messages
}

// MakePostponed makes, in the maker, the open files that wait for processes and threads, and gives them to those who are to have
// them: holders are all, one for each table at least. They have the maker's descriptors still, and no other batch runs.
func (r *Files) MakePostponed(ctx context.Context, holders []Holder) error {
	s := r.m.Page.Script(ctx, r.m.PidFD)
	for _, id := range object.SortedIDs(r.postponed) {
		s.About("file %d", id)
		r.postponed[id](s, r.fds[id])
	}
	if err := s.Run(); err != nil {
		return err
	}
	if err := r.verify(); err != nil {
		return err
	}
	for _, h := range holders {
		if h.Maker.Page == r.m.Page {
			continue
		}
		if err := r.share(ctx, h.Maker, r.set.FdTables[h.Table]); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	for _, id := range object.SortedIDs(r.postponed) {
		s.About("file %d", id)
		r.setFlags(s, r.set.Files[id])
	}
	return s.Run()
}

// share gives a process the postponed files that its table leads to.
func (r *Files) share(ctx context.Context, to *object.Maker, table *dump.FdTable) error {
	needed := make(map[uint64]bool)
	for _, fd := range table.GetFds() {
		needed[fd.GetFile()] = true
	}
	for _, w := range r.watches[table.GetId()] {
		needed[w.epoll], needed[w.item.GetFile()] = true, true
	}
	for _, id := range object.SortedIDs(r.postponed) {
		if !needed[id] {
			continue
		}
		f, err := r.m.Take(r.fds[id])
		if err != nil {
			return err
		}
		err = to.Give(ctx, f, r.fds[id])
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Completer is a [Restorer] with something to do when every process has its descriptors, and nobody has others any more.
type Completer interface{ Complete() error }

func (r *Files) complete() error {
	for _, kind := range r.kinds {
		if c, ok := kind.(Completer); ok {
			if err := c.Complete(); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofProcess tells whether an open file cannot be made before the processes are there.
func ofProcess(f *dump.File) bool {
	return f.GetPath().GetProcess() != 0 && !f.GetPath().GetDeleted() || f.GetPidfd().GetPid() != 0
}

// During adds calls to a stub's script, during which a process with a pid is there. It has no memory and no descriptors to
// get at afterwards. No task has that pid, and no other stub does the same.
func (r *Files) During(s *remote.Script, pid int, calls func()) error {
	if r.m.Child == nil || pid <= 1 || pid >= object.MaxPID {
		return fmt.Errorf("process %d cannot be there for a moment", pid)
	}
	if err := s.Run(); err != nil {
		return err
	}
	r.m.Child.Batch() // it waits for one, until it is killed
	b := s.Room(1024)
	b.Clone("make a process for a moment", remote.CloneArgs{Slot: r.m.Child, SetTID: []int{pid}})
	calls()
	b = s.Room(512)
	b.Call("end it", unix.SYS_KILL, pid, unix.SIGKILL)
	b.Call("wait for its end", unix.SYS_WAIT4, pid, 0, unix.WALL, 0)
	return s.Run()
}
