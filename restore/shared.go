package restore

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// firsts returns, of the processes that share something, the one with the lowest pid. id is what a record says of that something; 0 is
// nobody else's.
func (r *restorer) firsts(id func(*dump.Process) uint64) map[*process]bool {
	known := make(map[uint64]bool)
	first := make(map[*process]bool)
	for _, p := range object.Sorted(r.procs) {
		own := id(p.record)
		first[p] = own == 0 || !known[own]
		known[own] = true
	}
	return first
}

// holder is who has a table of descriptors: a process, or a thread of it that has one of its own.
type holder struct {
	*process
	page *remote.Page
	own  bool
}

// holders returns who has each table, in the order of their pids.
func (r *restorer) holders() map[uint64][]holder {
	holders := make(map[uint64][]holder)
	for _, p := range object.Sorted(r.procs) {
		id := p.record.GetFdTable()
		holders[id] = append(holders[id], holder{process: p, page: p.page})
		for _, th := range p.threads {
			if id := th.record.GetFdTable(); id != 0 {
				holders[id] = append(holders[id], holder{p, th.page, true})
			}
		}
	}
	return holders
}

// makePostponed makes open files that are of a process or a thread, and hands them to the holders of tables.
func (r *restorer) makePostponed(ctx context.Context) error {
	var list []file.Holder
	for id, holders := range r.holders() {
		h := holders[0]
		maker := &object.Maker{Page: h.page, PidFD: h.pidfd, Socket: r.Socket, SocketFD: r.SocketFD}
		list = append(list, file.Holder{Maker: maker, Table: id, Name: h.name(r.set)})
	}
	return r.files.MakePostponed(ctx, list)
}

// enterPlaces puts the stubs where their processes stood, and threads with a place of their own.
func (r *restorer) enterPlaces(ctx context.Context) error {
	first := r.firsts((*dump.Process).GetFs)
	return r.together(ctx, func(ctx context.Context, p *process) error {
		if first[p] {
			s := p.page.Script(ctx, p.pidfd)
			if err := r.place(s, p.record.GetRoot(), p.record.GetCwd()); err != nil {
				return err
			}
			if err := s.Run(); err != nil {
				return err
			}
		}
		for _, th := range p.threads {
			if th.record.GetFs() == nil {
				continue
			}
			s := th.page.Script(ctx, p.pidfd)
			if err := r.place(s, th.record.GetFs().GetRoot(), th.record.GetFs().GetCwd()); err != nil {
				return err
			}
			if err := s.Run(); err != nil {
				return err
			}
		}
		return nil
	})
}

// place puts the stub where its process stood: root and current directory.
func (r *restorer) place(s *remote.Script, rootRef, ref *dump.FileRef) error {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	root, err := r.ref(rootRef, flags)
	if err != nil {
		return err
	}
	if ref.GetProcess() == 0 {
		cwd, err := r.ref(ref, flags)
		if err == nil {
			enter(s, rootRef, ref, root, cwd)
		}
		return err
	}
	cwd := r.files.Bench()[1]
	visit := func() {
		r.files.OpenNamed(s, ref.GetPath(), flags, cwd)
		enter(s, rootRef, ref, root, cwd)
		s.Call("close", unix.SYS_CLOSE, cwd)
	}
	if ref.GetDeleted() {
		r.child.Lock()
		defer r.child.Unlock()
		return r.files.During(s, int(ref.GetProcess()), visit)
	}
	visit()
	return nil
}

// enter changes root and current directory to those that the stub's descriptors are open on.
func enter(s *remote.Script, rootRef, ref *dump.FileRef, root, cwd int) {
	b := s.Room(1024)
	if rootRef.GetPath() != "/" {
		b.Call("enter root "+rootRef.GetPath(), unix.SYS_FCHDIR, root)
		b.Call("chroot", unix.SYS_CHROOT, b.String("."))
	}
	b.Call("chdir "+ref.GetPath(), unix.SYS_FCHDIR, cwd)
}

// installTables gives the stubs their own descriptors in place of all.
func (r *restorer) installTables(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	for id, list := range r.holders() {
		g.Go(func() error { return r.installTable(ctx, r.set.FdTables[id], list) })
	}
	return g.Wait()
}

// installTable has the first of those who share a table install it, when all are done with the maker's files.
func (r *restorer) installTable(ctx context.Context, table *dump.FdTable, holders []holder) error {
	scripts := make([]*remote.Script, len(holders))
	for i, h := range holders {
		s := h.page.Script(ctx, h.pidfd)
		scripts[i] = s
		if h.own {
			continue
		}
		if h.record.GetTty() != 0 && h.record.GetSid() == h.record.GetPid() {
			if err := r.files.TTYs.SetForeground(s.Room(512), h.record.GetTty()); err != nil {
				return h.nameOf(r.set, err)
			}
		}
		r.files.TakeFlocks(s, h.record.GetPid())
		if i == 0 {
			continue
		}
		if err := s.Run(); err != nil {
			return h.nameOf(r.set, err)
		}
	}
	for i, h := range holders {
		if i == 0 {
			if err := r.files.Install(scripts[i], table); err != nil {
				return h.nameOf(r.set, err)
			}
			r.files.Locks().TakeLocks(scripts[i], 0, table)
		}
		r.files.Locks().TakeLocks(scripts[i], h.record.GetPid(), table)
		if err := scripts[i].Run(); err != nil {
			return h.nameOf(r.set, err)
		}
	}
	return nil
}
