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

// standIns returns the first of those processes that share something with each other, and all that share with nobody. id is what
// a record says of that something; 0 is nobody else's.
func (r *restorer) standIns(id func(*dump.Process) uint64) map[*process]bool {
	known := make(map[uint64]bool)
	first := make(map[*process]bool)
	for _, p := range object.Sorted(r.procs) {
		own := id(p.record)
		first[p] = own == 0 || !known[own]
		known[own] = true
	}
	return first
}

// place puts the stub where its process stood: root and current directory.
func (r *restorer) place(s *remote.Script, rootRef, cwdRef *dump.FileRef) error {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	root, err := r.ref(rootRef, flags)
	if err != nil {
		return err
	}
	cwd, err := r.ref(cwdRef, flags)
	if err != nil {
		return err
	}
	b := s.Room(1024)
	if rootRef.GetPath() != "/" {
		b.Call("enter root "+rootRef.GetPath(), unix.SYS_FCHDIR, root)
		b.Call("chroot", unix.SYS_CHROOT, b.String("."))
	}
	b.Call("chdir "+cwdRef.GetPath(), unix.SYS_FCHDIR, cwd)
	return nil
}

// installTables gives the stubs their own descriptors in place of all.
func (r *restorer) installTables(ctx context.Context) error {
	holders := make(map[uint64][]*process)
	for _, p := range object.Sorted(r.procs) {
		id := p.record.GetFdTable()
		holders[id] = append(holders[id], p)
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	for id, list := range holders {
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
			if err := r.ttys.SetForeground(s.Room(512), p.record.GetTty()); err != nil {
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
		r.files.TakeLocks(s, p.record.GetPid(), table)
		if err := s.Run(); err != nil {
			return p.nameOf(r.set, err)
		}
	}
	return nil
}
