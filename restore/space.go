package restore

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/memory"
	"vps/pager"
	"vps/pager/lazy"
	"vps/remote"
)

// space is the memory of a stub on its way to become that of its process, or of those who are to inherit it.
type space struct {
	mm     *dump.Mm
	change change
	script *remote.Script
	memory *pager.Memory
	fault  int           // the stub's userfaultfd, -1 for none
	device int           // the stub's /dev/userfaultfd, if it is to serve the running process; 0: it is not
	later  []dump.Extent // what the process gets when it runs
}

func (r *restorer) newSpace(name string, s *remote.Script, mm *dump.Mm, c change) *space {
	sp := &space{mm: mm, change: c, script: s, fault: -1}
	sp.memory = &pager.Memory{Name: name, Extents: c.filled, Backed: fileBacked(mm), Fault: -1}
	for _, m := range sp.anonymous() {
		all := dump.Range{Start: m.GetStart(), End: m.GetEnd()}
		sp.memory.Anonymous = append(sp.memory.Anonymous, all)
		if r.mayBeHuge(mm, m) {
			sp.memory.Huge = append(sp.memory.Huge, all)
		}
	}
	return sp
}

// anonymous lists the anonymous mappings that are to be filled.
func (sp *space) anonymous() []*dump.Mapping {
	return slices.DeleteFunc(slices.Clone(sp.mm.GetMappings()), func(m *dump.Mapping) bool {
		return m.GetKind() != dump.Mapping_ANON || m.GetShared() || sp.bytes(m) == 0
	})
}

// bytes tells how much of a mapping is to be filled.
func (sp *space) bytes(m *dump.Mapping) uint64 {
	list := sp.change.filled
	first, _ := slices.BinarySearchFunc(list, m.GetStart(), func(e dump.Extent, start uint64) int {
		if e.End <= start {
			return -1
		}
		return 1
	})
	var sum uint64
	for _, e := range list[first:] {
		if e.Start >= m.GetEnd() {
			break
		}
		sum += min(e.End, m.GetEnd()) - max(e.Start, m.GetStart())
	}
	return sum
}

// mayBeHuge tells whether a mapping gets huge pages where the host has set transparent_hugepage/enabled as it has
// (admin-guide/mm/transhuge.rst).
func (r *restorer) mayBeHuge(mm *dump.Mm, m *dump.Mapping) bool {
	switch {
	case mm.GetThpDisable(), hasFlag(m, "nh"):
		return false
	case r.huge == "always":
		return true
	}
	return r.huge == "madvise" && hasFlag(m, "hg")
}

// hasFlag tells whether a mapping has a flag of smaps.
func hasFlag(m *dump.Mapping, flag string) bool {
	return slices.Contains(strings.Fields(m.GetVmFlags()), flag)
}

// readHuge reads which memory of the host's gets huge pages: "always", "madvise" or "never". Where there are none, it is "".
func readHuge() string {
	text, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled") // [ ] are around what is chosen
	_, chosen, _ := strings.Cut(string(text), "[")
	chosen, _, _ = strings.Cut(chosen, "]")
	return chosen
}

// worthFault is how many bytes a process must get for a userfaultfd to pay off.
const worthFault = 1 << 20

// build lets the stub map its memory and drop what it has inherited and does not want.
func (sp *space) build(a *remote.Arena, files memory.Mappable) error {
	s := sp.script
	if err := memory.Map(s, a, sp.mm, files, sp.change.kept, func(m *dump.Mapping) bool { return sp.bytes(m) > 0 }); err != nil {
		return err
	}
	for _, r := range sp.change.dropped {
		s.Call(fmt.Sprintf("drop %v", r), unix.SYS_MADVISE, r.Start, r.Len(), unix.MADV_DONTNEED)
	}
	for _, m := range sp.mm.GetMappings() {
		if hasFlag(m, "hg") { // before the pages come; what has the flag by the host's choice needs none
			s.Call(fmt.Sprintf("allow huge pages at %#x", m.GetStart()), unix.SYS_MADVISE, m.GetStart(), m.GetEnd()-m.GetStart(), unix.MADV_HUGEPAGE)
		}
	}
	if sum := uint64(0); len(sp.memory.Anonymous) > 0 {
		for _, m := range sp.mm.GetMappings() {
			sum += sp.bytes(m)
		}
		if sum >= worthFault {
			return sp.openFault()
		}
	}
	return s.Run()
}

// openFault makes a userfaultfd, if the kernel gives one. If it is for nothing but to fill, it need serve no fault of the kernel's.
func (sp *space) openFault() error {
	b := sp.script.Room(512)
	const flags = unix.O_CLOEXEC | unix.O_NONBLOCK
	var opened remote.Result
	if sp.device > 0 {
		opened = b.Call("userfaultfd", unix.SYS_IOCTL, sp.device, linux.USERFAULTFD_IOC_NEW, flags)
	} else {
		opened = b.Try("userfaultfd", unix.SYS_USERFAULTFD, flags|userModeOnly)
	}
	if err := sp.script.Run(); err != nil {
		return err
	}
	if fd, err := b.Value(opened); err == nil {
		sp.fault = int(fd)
	}
	return nil
}

const userModeOnly = 1 // UFFD_USER_MODE_ONLY, include/uapi/linux/userfaultfd.h

// postpone leaves what it can for when the process runs, but for pages that it needs at once.
func (sp *space) postpone(device int, now []dump.Range) {
	sp.memory.Anonymous = nil
	for _, m := range sp.anonymous() {
		// What is locked has to be there; the others lose pages without a word of the kernel's.
		if !hasFlag(m, "lo") && !hasFlag(m, "wf") && !hasFlag(m, "dp") {
			sp.memory.Anonymous = append(sp.memory.Anonymous, dump.Range{Start: m.GetStart(), End: m.GetEnd()})
		}
	}
	later, rest := pager.Divide(sp.memory.Extents, sp.memory.Anonymous)
	soon, later := pager.Divide(later, now)
	if size(later) < worthFault {
		return
	}
	sp.device, sp.later = device, later
	sp.memory.Features, sp.memory.Huge = lazy.Features, nil
	sp.memory.Extents = append(rest, soon...)
	slices.SortFunc(sp.memory.Extents, func(a, b dump.Extent) int { return cmp.Compare(a.Start, b.Start) })
}

func size(extents []dump.Extent) uint64 {
	var sum uint64
	for _, e := range extents {
		sum += e.Len()
	}
	return sum
}

// neededSoon lists where a process's threads go on, and what the kernel or others read of it at any time.
func neededSoon(set *object.Set, p *dump.Process) []dump.Range {
	var list []dump.Range
	add := func(start, size uint64) {
		const most = 1 << 20
		if start > 0 && start < remote.TaskSize {
			list = append(list, dump.Range{Start: start &^ (pageSize - 1), End: (start + min(size, most) + pageSize - 1) &^ (pageSize - 1)})
		}
	}
	mm := set.Mms[p.GetMm()]
	add(mm.GetArgStart(), mm.GetArgEnd()-mm.GetArgStart())
	add(mm.GetEnvStart(), mm.GetEnvEnd()-mm.GetEnvStart())
	for _, tid := range p.GetThreads() {
		t := set.Threads[uint64(tid)]
		add(t.GetRegs().GetRip(), 1)
		add(t.GetRegs().GetRsp()-128, pageSize) // with the red zone
		add(t.GetRegs().GetFsBase(), 1)
		add(t.GetRseq().GetAddress(), uint64(t.GetRseq().GetSize()))
		add(t.GetTidAddress(), 4)
	}
	list = sorted(list)
	merged := list[:0]
	for _, r := range list {
		if n := len(merged); n > 0 && merged[n-1].End >= r.Start {
			merged[n-1].End = max(merged[n-1].End, r.End)
		} else {
			merged = append(merged, r)
		}
	}
	return merged
}

// take makes ready to fill the memory of the process, which is found here.
func (sp *space) take(pid, pidfd int) error {
	sp.memory.PID = pid
	if sp.fault < 0 {
		return nil
	}
	var err error
	if sp.memory.Fault, err = unix.PidfdGetfd(pidfd, sp.fault, 0); err != nil {
		return fmt.Errorf("take userfaultfd of process %d: %w", pid, err)
	}
	return nil
}

// filled ends the filling: from now on pages that are missing are zero.
func (sp *space) filled() {
	sp.close()
	if sp.fault >= 0 {
		sp.script.Call("close userfaultfd", unix.SYS_CLOSE, sp.fault)
		sp.fault = -1
	}
}

func (sp *space) close() {
	if sp.memory.Fault >= 0 {
		unix.Close(sp.memory.Fault)
		sp.memory.Fault = -1
	}
}

// endow gives the stubs of a wave the pages that their children inherit. They are born, or about to be.
func (r *restorer) endow(ctx context.Context, wave []int, pages map[int]*remote.Page) error {
	spaces := make(map[int]*space)
	for _, pid := range wave {
		e := r.heritage.estates[pid]
		var extents []dump.Extent
		for _, s := range e.pages {
			extents = append(extents, s.extent())
		}
		from := r.heritage.inherited(pid)
		c := r.heritage.areas.change(from, e.mappings, extents, e.pages)
		// What else is there stays: the stub, and its children, may need it before they have memory of their own.
		c.kept = sorted(c.kept, r.beside(from, e))
		spaces[pid] = r.newSpace(fmt.Sprintf("pid %d", pid), pages[pid].Script(ctx, r.PidFD), &dump.Mm{Mappings: e.mappings}, c)
	}
	var memories []*pager.Memory
	g := new(errgroup.Group)
	for pid, sp := range spaces {
		memories = append(memories, sp.memory)
		g.Go(func() error {
			sp.script.Call("be born", unix.SYS_GETPID) // it may have nothing else to do, and yet we wait for that
			if err := sp.build(r.Arena, r); err != nil {
				return fmt.Errorf("pid %d: %w", pid, err)
			}
			return nil
		})
		defer sp.close()
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := r.takeAll(spaces); err != nil {
		return err
	}
	if err := pager.Fill(ctx, r.snapshot, memories); err != nil {
		return err
	}
	for pid, sp := range spaces {
		sp.filled()
		if err := sp.script.Run(); err != nil {
			return fmt.Errorf("pid %d: %w", pid, err)
		}
	}
	return nil
}

// beside lists what neither the arena nor one of the estates takes of the address space.
func (r *restorer) beside(estates ...*estate) []dump.Range {
	taken := []dump.Range{{Start: r.Arena.Base(), End: r.Arena.Base() + uint64(r.Arena.Size())}, {Start: remote.TaskSize, End: remote.TaskSize}}
	for _, e := range estates {
		if e != nil {
			for _, m := range e.mappings {
				taken = append(taken, dump.Range{Start: m.GetStart(), End: m.GetEnd()})
			}
		}
	}
	var list []dump.Range
	at := uint64(0)
	for _, t := range sorted(taken) {
		if at < t.Start {
			list = append(list, dump.Range{Start: at, End: t.Start})
		}
		at = max(at, t.End)
	}
	return list
}

// takeAll finds the processes of spaces, by their pids inside.
func (r *restorer) takeAll(spaces map[int]*space) error {
	hosts, err := r.Group.Procs()
	if err != nil {
		return err
	}
	found := 0
	for _, host := range hosts {
		pid, ok := r.met[host]
		if !ok {
			if pid, err = object.ReadInside(host); object.Vanished(err) {
				continue
			}
			if err != nil {
				return err
			}
			r.met[host] = pid
		}
		sp := spaces[pid]
		if sp == nil {
			continue
		}
		pidfd, err := unix.PidfdOpen(host, 0)
		if err != nil {
			return fmt.Errorf("open process %d: %w", host, err)
		}
		err = sp.take(host, pidfd)
		unix.Close(pidfd)
		if err != nil {
			return err
		}
		found++
	}
	if found < len(spaces) {
		return fmt.Errorf("%d of %d processes are gone after their births", len(spaces)-found, len(spaces))
	}
	return nil
}
