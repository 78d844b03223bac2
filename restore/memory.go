package restore

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/memory"
	"vps/object/task"
	"vps/pager"
	"vps/remote"
)

// furnish gives each stub its memory, directories, threads and descriptors. Processes are independent of each other here.
func (r *restorer) furnish(ctx context.Context) error {
	if err := r.files.Deliver(ctx, r.stub); err != nil {
		return err
	}
	for _, p := range r.procs {
		if err := task.RestoreOOMScore(p.host, p.record); err != nil {
			if !r.Force {
				return p.nameOf(r.set, err)
			}
			r.Warn(err.Error())
		}
	}
	if err := r.together(ctx, r.furnishProcess); err != nil {
		return err
	}
	makers := make(map[uint32]*object.Maker)
	for pid, p := range r.procs {
		if err := r.bearThreads(ctx, p); err != nil {
			return p.nameOf(r.set, err)
		}
		makers[pid] = &object.Maker{Page: p.page, PidFD: p.pidfd, Socket: r.Socket, SocketFD: r.SocketFD}
	}
	if err := r.files.MakePostponed(ctx, makers); err != nil {
		return err
	}
	if err := r.files.SetOwners(ctx); err != nil {
		return err
	}
	if err := r.together(ctx, r.install); err != nil {
		return err
	}
	for _, p := range r.procs {
		if !r.files.HasLeases(p.record.GetPid()) {
			continue
		}
		if err := r.files.TakeLeases(p.page.Script(ctx, p.pidfd), p.host, p.record); err != nil {
			return p.nameOf(r.set, err)
		}
	}
	if err := r.files.IPC.Complete(ctx, r.stub); err != nil {
		return err
	}
	return r.files.Finish()
}

func (r *restorer) stub(pid int) (*remote.Page, int) {
	p := r.procs[uint32(pid)]
	if p == nil {
		return nil, -1
	}
	return p.page, p.pidfd
}

// together does something for all processes at the same time.
func (r *restorer) together(ctx context.Context, do func(context.Context, *process) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	for _, p := range r.procs {
		g.Go(func() error {
			if err := do(ctx, p); err != nil {
				return p.nameOf(r.set, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *restorer) furnishProcess(ctx context.Context, p *process) error {
	mm := r.set.Mms[p.record.GetMm()]
	s := p.page.Script(ctx, p.pidfd)
	if err := memory.Map(s, r.Arena, mm, r); err != nil {
		return err
	}
	if err := s.Run(); err != nil {
		return err
	}
	if err := pager.Fill(ctx, r.snapshot, mm.GetId(), p.host, fileBacked(mm)); err != nil {
		return err
	}
	memory.Protect(s, mm)
	exe, err := r.ref(mm.GetExe(), unix.O_RDONLY)
	if err != nil {
		return err
	}
	memory.Describe(s, mm, exe)
	if err := s.Run(); err != nil {
		return err
	}
	if err := r.attributes(ctx, p); err != nil {
		return err
	}
	s = p.page.Script(ctx, p.pidfd)
	if err := r.place(s, p.record); err != nil {
		return err
	}
	if err := s.Run(); err != nil {
		return err
	}
	p.vdso, err = findSyscall(p.host, mm)
	return err
}

// attributes gives the stub what has files of its own in /proc.
func (r *restorer) attributes(ctx context.Context, p *process) error {
	if err := task.RestoreCoredumpFilter(p.host, p.record); err != nil {
		return err
	}
	if p.record.LoginUid == nil {
		return nil
	}
	ids, err := object.ReadIDMaps(p.host)
	if err != nil {
		return err
	}
	err = task.RestoreLoginUID(p.page.Script(ctx, p.pidfd), p.host, p.record, ids, r.files.Bench()[0])
	if err != nil && r.Force {
		r.Warn(p.nameOf(r.set, err).Error())
		return nil
	}
	return err
}

// place puts the stub where its process stood: root and current directory.
func (r *restorer) place(s *remote.Script, p *dump.Process) error {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	root, err := r.ref(p.GetRoot(), flags)
	if err != nil {
		return err
	}
	ref := p.GetCwd()
	if ref.GetProcess() == 0 {
		cwd, err := r.ref(ref, flags)
		if err == nil {
			r.enter(s, p, root, cwd)
		}
		return err
	}
	cwd := r.files.Bench()[1]
	enter := func() {
		r.files.OpenNamed(s, ref.GetPath(), flags, cwd)
		r.enter(s, p, root, cwd)
		s.Call("close", unix.SYS_CLOSE, cwd)
	}
	if ref.GetDeleted() {
		r.child.Lock()
		defer r.child.Unlock()
		return r.files.During(s, int(ref.GetProcess()), enter)
	}
	enter()
	return nil
}

// enter changes root and current directory to those that the stub's descriptors are open on.
func (r *restorer) enter(s *remote.Script, p *dump.Process, root, cwd int) {
	b := s.Room(1024)
	if p.GetRoot().GetPath() != "/" {
		b.Call("enter root "+p.GetRoot().GetPath(), unix.SYS_FCHDIR, root)
		b.Call("chroot", unix.SYS_CHROOT, b.String("."))
	}
	b.Call("chdir "+p.GetCwd().GetPath(), unix.SYS_FCHDIR, cwd)
}

// install gives the stub its own descriptors in place of all.
func (r *restorer) install(ctx context.Context, p *process) error {
	s := p.page.Script(ctx, p.pidfd)
	if p.record.GetTty() != 0 && p.record.GetSid() == p.record.GetPid() {
		if err := r.files.TTYs.SetForeground(s.Room(512), p.record.GetTty()); err != nil {
			return err
		}
	}
	if err := r.files.Install(s, p.record.GetPid(), r.set.FdTables[p.record.GetFdTable()]); err != nil {
		return err
	}
	return s.Run()
}

// fileBacked returns the ranges in which a file's pages lie below private ones.
func fileBacked(mm *dump.Mm) []dump.Range {
	var list []dump.Range
	for _, m := range mm.GetMappings() {
		if k := m.GetKind(); !m.GetShared() && (k == dump.Mapping_FILE || k == dump.Mapping_MEMORY) {
			list = append(list, dump.Range{Start: m.GetStart(), End: m.GetEnd()})
		}
	}
	return list
}

func findSyscall(pid int, mm *dump.Mm) (uint64, error) {
	var start, end uint64
	for _, m := range mm.GetMappings() {
		if m.GetKind() == dump.Mapping_VDSO {
			start, end = m.GetStart(), m.GetEnd()
		}
	}
	return remote.FindSyscall(pid, start, end)
}
