package restore

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/memory"
	"vps/object/task"
	"vps/pager"
	"vps/remote"
)

// furnish gives each stub its memory, directories and descriptors. Processes are independent of each other here, but for what
// they share: that is given to the first of them.
func (r *restorer) furnish(ctx context.Context) error {
	if err := r.files.SetOwners(ctx); err != nil {
		return err
	}
	if err := r.furnishAll(ctx); err != nil {
		return err
	}
	return r.files.Finish()
}

func (r *restorer) furnishAll(ctx context.Context) error {
	for _, p := range r.procs {
		if err := task.RestoreOOMScore(p.host, p.record); err != nil {
			if !r.Force {
				return p.nameOf(r.set, err)
			}
			r.Warn(err.Error())
		}
	}
	spaces, places := r.standIns((*dump.Process).GetMm), r.standIns((*dump.Process).GetFs)
	err := r.together(func(p *process) error {
		s := p.page.Script(ctx, p.pidfd)
		if spaces[p] {
			if err := r.furnishMemory(ctx, s, p); err != nil {
				return err
			}
		}
		if places[p] {
			if err := r.place(s, p.record.GetRoot(), p.record.GetCwd()); err != nil {
				return err
			}
		}
		return s.Run()
	})
	if err != nil {
		return err
	}
	// Only now: all of the maker's files are there until a table is installed, for everybody who shares it.
	return r.installTables(ctx)
}

// together calls f for all processes, several at a time.
func (r *restorer) together(f func(*process) error) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	for _, p := range r.procs {
		g.Go(func() error {
			if err := f(p); err != nil {
				return p.nameOf(r.set, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// furnishMemory lays out a stub's memory and fills it.
func (r *restorer) furnishMemory(ctx context.Context, s *remote.Script, p *process) error {
	mm := r.set.Mms[p.record.GetMm()]
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
	return nil
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
