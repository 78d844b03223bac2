package restore

import (
	"context"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/aio"
	"vps/object/memory"
	"vps/object/task"
	"vps/pager"
	"vps/pager/lazy"
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
	defer r.closeSpaces()
	if err := r.fill(ctx); err != nil {
		return err
	}
	if err := r.together(ctx, r.furnishMemory); err != nil {
		return err
	}
	if err := r.together(ctx, r.attributes); err != nil {
		return err
	}
	for _, p := range r.procs {
		if err := r.bearThreads(ctx, p); err != nil {
			return p.nameOf(r.set, err)
		}
	}
	if err := r.enterPlaces(ctx); err != nil {
		return err
	}
	if err := r.makePostponed(ctx); err != nil {
		return err
	}
	if err := r.files.SetOwners(ctx); err != nil {
		return err
	}
	if err := r.installTables(ctx); err != nil {
		return err
	}
	for _, p := range r.procs {
		if !r.files.Locks().HasLeases(p.record.GetPid()) {
			continue
		}
		if err := r.files.Locks().TakeLeases(p.page.Script(ctx, p.pidfd), p.host, p.record); err != nil {
			return p.nameOf(r.set, err)
		}
	}
	if err := r.files.IPC.Complete(ctx, r.stub); err != nil {
		return err
	}
	if err := r.files.Finish(); err != nil {
		return err
	}
	return r.mounts.Seal()
}

func (r *restorer) stub(pid int) (*remote.Page, int) {
	p := r.procs[uint32(pid)]
	if p == nil {
		return nil, -1
	}
	return p.page, p.pidfd
}

// together does something for all processes at the same time; for those who share a table of descriptors, one after the other: what
// a call opens is found at the lowest free number.
func (r *restorer) together(ctx context.Context, do func(context.Context, *process) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	for _, holders := range r.holders() {
		g.Go(func() error {
			for _, h := range holders {
				if h.own {
					continue
				}
				if err := do(ctx, h.process); err != nil {
					return h.nameOf(r.set, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// fill gives the stubs their memory, as far as it is not to come later.
func (r *restorer) fill(ctx context.Context) error {
	var memories []*pager.Memory
	for pid, p := range r.procs {
		if r.heritage.root(int(pid)) == int(pid) {
			p.space = r.spaceOf(ctx, p)
			memories = append(memories, p.space.memory)
		}
	}
	err := r.together(ctx, func(_ context.Context, p *process) error {
		if p.space == nil {
			return nil
		}
		if err := p.space.build(r.Arena, r); err != nil {
			return err
		}
		return p.space.take(p.host, p.pidfd)
	})
	if err != nil {
		return err
	}
	if err := pager.Fill(ctx, r.snapshot, memories); err != nil {
		return err
	}
	return r.leaveRest(ctx)
}

func (r *restorer) closeSpaces() {
	for _, p := range r.procs {
		if p.space != nil {
			p.space.close()
		}
	}
}

// leaveRest hands over the memories that are to be filled later. From here on somebody serves their faults.
func (r *restorer) leaveRest(ctx context.Context) error {
	var later []lazy.Memory
	for _, p := range r.procs {
		if p.space != nil && len(p.space.later) > 0 {
			later = append(later, lazy.Memory{Fault: p.space.memory.Fault, Extents: p.space.later})
		}
	}
	if len(later) == 0 {
		return nil
	}
	return r.Lazy(ctx, later)
}

// spaceOf plans the memory of a process, which has inherited some.
func (r *restorer) spaceOf(ctx context.Context, p *process) *space {
	mm := r.set.Mms[p.record.GetMm()]
	extents := r.snapshot.Extents(mmKey(mm.GetId()))
	from := r.heritage.estates[int(p.record.GetPid())]
	var pages []span
	var mappings []*dump.Mapping
	if from != nil {
		mappings = r.besideSegments(mm.GetMappings())
		pages = r.heritage.areas.spans(mappings, extents)
	}
	sp := r.newSpace(p.name(r.set), p.page.Script(ctx, p.pidfd), mm, r.heritage.areas.change(from, mappings, extents, pages))
	if r.Lazy != nil {
		sp.postpone(r.faults, neededSoon(r.set, p.record))
	}
	return sp
}

// besideSegments returns the mappings that do not lie where System V shared memory is to be attached: as a whole at
// first (shmat(2)), even if parts of it have given way to others since.
func (r *restorer) besideSegments(mappings []*dump.Mapping) []*dump.Mapping {
	var segments []dump.Range
	for _, m := range mappings {
		if m.GetKind() == dump.Mapping_SHM {
			start := m.GetStart() - m.GetOffset()
			size, err := r.SegmentSize(m.GetShm())
			if err != nil {
				return nil // that is said when it is attached
			}
			segments = append(segments, dump.Range{Start: start, End: start + size})
		}
	}
	return slices.DeleteFunc(slices.Clone(mappings), func(m *dump.Mapping) bool {
		return slices.ContainsFunc(segments, func(s dump.Range) bool { return m.GetStart() < s.End && s.Start < m.GetEnd() })
	})
}

// furnishMemory gives filled memory its attributes.
func (r *restorer) furnishMemory(_ context.Context, p *process) error {
	if p.space == nil {
		return nil
	}
	s, mm := p.space.script, p.space.mm
	p.space.filled()
	memory.Protect(s, mm, p.space.change.kept)
	if err := aio.Restore(s, mm); err != nil {
		return err
	}
	exe, err := r.ref(mm.GetExe(), unix.O_RDONLY)
	if err != nil {
		return err
	}
	memory.Describe(s, mm, exe)
	return s.Run()
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
