package restore

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
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

// holders returns the processes that share a table of descriptors, in the order of their pids, for each table.
func (r *restorer) holders() map[uint64][]*process {
	holders := make(map[uint64][]*process)
	for _, p := range object.Sorted(r.procs) {
		id := p.record.GetFdTable()
		holders[id] = append(holders[id], p)
	}
	return holders
}

// enterPlaces puts the stubs where their processes stood.
func (r *restorer) enterPlaces(ctx context.Context) error {
	first := r.firsts((*dump.Process).GetFs)
	return r.together(ctx, func(ctx context.Context, p *process) error {
		if !first[p] {
			return nil
		}
		s := p.page.Script(ctx, p.pidfd)
		if err := r.place(s, p.record.GetRoot(), p.record.GetCwd()); err != nil {
			return err
		}
		return s.Run()
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
func (r *restorer) installTable(ctx context.Context, table *dump.FdTable, holders []*process) error {
	first := holders[0].page.Script(ctx, holders[0].pidfd)
	for _, p := range holders {
		s := first
		if p != holders[0] {
			s = p.page.Script(ctx, p.pidfd)
		}
		if p.record.GetTty() != 0 && p.record.GetSid() == p.record.GetPid() {
			if err := r.files.TTYs.SetForeground(s.Room(512), p.record.GetTty()); err != nil {
				return p.nameOf(r.set, err)
			}
		}
		r.files.TakeFlocks(s, p.record.GetPid())
		if s == first {
			continue
		}
		if err := s.Run(); err != nil {
			return p.nameOf(r.set, err)
		}
	}
	if err := r.files.Install(first, table); err != nil {
		return holders[0].nameOf(r.set, err)
	}
	for _, p := range holders {
		s := first
		if p != holders[0] {
			s = p.page.Script(ctx, p.pidfd)
		}
		r.files.Locks().TakeLocks(s, p.record.GetPid(), table)
		if err := s.Run(); err != nil {
			return p.nameOf(r.set, err)
		}
	}
	return nil
}
