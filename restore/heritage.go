package restore

import (
	"cmp"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/birth"
)

// heritage plans what processes have from who gave birth to them, so that pages which several of them shared are there
// once again: a stub that gives birth to such processes is given the pages first. What a process does not want of them it
// drops afterwards, and gets what it has beyond them.
//
// Only pages at the same addresses, in mappings of the same thing, can be inherited.
type heritage struct {
	set      *object.Set
	snapshot *dump.Snapshot
	areas    areas
	children map[int][]int // by who makes them
	first    []int         // who is made from outside
	maker    map[int]int
	sharing  map[int]bool   // who has the memory of its maker (CLONE_VM)
	own      map[int][]span // pages that others have too, by pid
	below    map[int][]span // pages that descendants want
	wanted   map[int][]span // pages that these or the process itself want; gone when its maker knows them
	estates  map[int]*estate
	waves    [][]int // who is given pages before giving birth; a wave is born when the one before gives birth
	work     int     // spans that may yet be looked at
}

// estate is what a stub has in its memory when it gives birth, and so each of its children at first.
type estate struct {
	mappings []*dump.Mapping // private ones, ascending
	pages    []span
}

// Bounds of what a snapshot can make us do; beyond them pages are not shared, that is all.
const (
	maxHeritageWork = 1 << 26 // spans looked at
	maxWaves        = 32
)

func newHeritage(set *object.Set, snapshot *dump.Snapshot, births birth.Stage, work int) *heritage {
	h := &heritage{
		set: set, snapshot: snapshot, areas: newAreas(), work: work, children: make(map[int][]int), maker: make(map[int]int), sharing: make(map[int]bool),
		own: make(map[int][]span), below: make(map[int][]span), wanted: make(map[int][]span), estates: make(map[int]*estate),
	}
	for _, step := range births[0] {
		h.first = append(h.first, step.PID)
	}
	for pid, steps := range births {
		for _, step := range steps {
			if pid != 0 && (step.Op == birth.Birth || step.Op == birth.BirthSibling) {
				h.maker[step.PID] = pid
				h.sharing[step.PID] = step.Share&unix.CLONE_VM != 0
			}
		}
	}
	for _, child := range slices.Sorted(maps.Keys(h.maker)) {
		if !h.sharing[child] {
			maker := h.root(h.maker[child])
			h.maker[child] = maker
			h.children[maker] = append(h.children[maker], child)
		}
	}
	if h.findShared(); len(h.own) == 0 {
		return h
	}
	order := h.order()
	for _, pid := range slices.Backward(order) {
		h.collect(pid)
	}
	if h.work < 0 {
		return h
	}
	waves := make([][]int, maxWaves)
	depth := make(map[int]int) // in how many waves its ancestors and itself are
	for _, pid := range order {
		depth[pid] = depth[h.maker[pid]]
		h.estates[pid] = h.inherited(pid)
		if e := h.bequeath(pid); e != nil && depth[pid] < maxWaves {
			h.estates[pid] = e
			waves[depth[pid]] = append(waves[depth[pid]], pid)
			depth[pid]++
		}
	}
	h.waves = slices.DeleteFunc(waves, func(w []int) bool { return len(w) == 0 })
	return h
}

// root returns the first of the processes that have the same memory as the given one.
func (h *heritage) root(pid int) int {
	for h.sharing[pid] {
		pid = h.maker[pid]
	}
	return pid
}

// inherited is what a process has from who made it, nil if nothing.
func (h *heritage) inherited(pid int) *estate { return h.estates[h.maker[pid]] }

// order lists all processes, each after who made it.
func (h *heritage) order() []int {
	order := slices.Clone(h.first)
	for i := 0; i < len(order); i++ {
		order = append(order, h.children[order[i]]...)
	}
	return order
}

// findShared finds the pages of each process that others have too.
func (h *heritage) findShared() {
	frames := h.snapshot.Frames()
	foreign := make([]bool, len(frames)) // pages of somebody else than the frame was written for
	extents := make(map[uint64][]dump.Extent)
	for id := range h.set.Mms {
		extents[id] = h.snapshot.Extents(mmKey(id))
		for _, e := range extents[id] {
			if e.Frame != dump.Zero && frames[e.Frame].Key != mmKey(id) {
				foreign[e.Frame] = true
			}
		}
	}
	type place struct {
		span
		pid int
	}
	var all []place
	for pid, p := range h.set.Processes {
		mm := h.set.Mms[p.GetMm()]
		if mm == nil || p.GetState() == dump.Process_ZOMBIE || h.sharing[int(pid)] {
			continue
		}
		list := slices.DeleteFunc(extents[mm.GetId()], func(e dump.Extent) bool { return e.Frame == dump.Zero || !foreign[e.Frame] })
		extents[mm.GetId()] = list
		for _, s := range h.areas.spans(mm.GetMappings(), list) {
			all = append(all, place{s, int(pid)})
		}
	}
	slices.SortFunc(all, func(a, b place) int {
		return cmp.Or(a.compare(b.label), cmp.Compare(a.Start, b.Start))
	})
	last := 0 // of those with the same label, the one that reaches farthest
	shared := make([]bool, len(all))
	for i := range all {
		if i > 0 && all[i].label == all[last].label && all[i].Start < all[last].End {
			shared[i], shared[last] = true, true
		}
		if all[i].label != all[last].label || all[i].End > all[last].End {
			last = i
		}
	}
	for i, p := range all {
		if shared[i] {
			h.own[p.pid] = append(h.own[p.pid], p.span)
		}
	}
	for _, list := range h.own {
		slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.Start, b.Start) })
	}
}

func mmKey(id uint64) dump.Key { return dump.Key{Type: dump.Type_TYPE_MM, ID: id} }

// collect notes what the descendants of a process want, and with it what itself wants: that comes first, as what is above
// knows no pages that came to be below.
func (h *heritage) collect(pid int) {
	own := h.own[pid]
	var lists [][]span
	for _, child := range h.children[pid] {
		var list []span
		compare(h.wanted[child], own, func(r dump.Range, x, y *span) {
			if x == nil {
				return
			}
			s := *x
			s.Range, s.branches = r, 1
			if y != nil && y.label == s.label {
				s.branches++
			}
			list = append(list, s)
		})
		lists = append(lists, list)
		delete(h.wanted, child)
	}
	h.below[pid] = h.join(lists)
	var all []span
	compare(own, h.below[pid], func(r dump.Range, x, y *span) {
		if x == nil {
			x, y = y, nil
		}
		all = append(all, x.with(r, y))
	})
	h.wanted[pid] = all
	h.work -= len(all)
}

// join makes one list of several. Where they disagree, the pages win that more of them have, or more processes.
func (h *heritage) join(lists [][]span) []span {
	switch len(lists) {
	case 0:
		return nil
	case 1:
		return lists[0]
	}
	a, b := h.join(lists[:len(lists)/2]), h.join(lists[len(lists)/2:])
	if h.work -= len(a) + len(b); h.work < 0 {
		return nil
	}
	var out []span
	compare(a, b, func(r dump.Range, x, y *span) {
		if x == nil || y != nil && cmp.Or(cmp.Compare(y.branches, x.branches), cmp.Compare(y.wanted, x.wanted)) > 0 {
			x, y = y, x
		}
		out = append(out, x.with(r, y))
	})
	return out
}

// bequeath returns what a process is to have when it gives birth; nil if that is just what it has inherited. It is given
// what two of its branches, or one of them and it itself, have in common; it passes on what it has inherited for one.
func (h *heritage) bequeath(pid int) *estate {
	var has []span
	if e := h.inherited(pid); e != nil {
		has = e.pages
	}
	e := &estate{}
	given := false
	compare(h.below[pid], has, func(r dump.Range, x, y *span) {
		if x == nil {
			return
		}
		inherited := y != nil && y.label == x.label
		if inherited || x.branches > 1 {
			given = e.add(x.with(r, nil)) && !inherited || given
		}
	})
	if !given {
		return nil
	}
	return e
}

// add adds pages behind those that are there, with room for the mapping in which they lie. It returns false if something else
// is mapped there.
func (e *estate) add(s span) bool {
	n, floor := len(e.mappings), uint64(0)
	if n > 0 {
		floor = e.mappings[n-1].GetEnd()
		if last := e.mappings[n-1]; e.pages[len(e.pages)-1].area == s.area && s.reach.Start <= floor {
			s.reach = dump.Range{Start: min(s.reach.Start, last.GetStart()), End: max(s.reach.End, floor)}
			n, floor = n-1, 0
			if n > 0 {
				floor = e.mappings[n-1].GetEnd()
			}
		}
	}
	if s.End <= floor {
		return false
	}
	s.Start, s.reach.Start = max(s.Start, floor), max(s.reach.Start, floor)
	e.mappings = append(e.mappings[:n], part(s.mapping, s.reach))
	e.pages = append(e.pages, s)
	return true
}

// part returns a mapping of another part of what a mapping is of.
func part(m *dump.Mapping, r dump.Range) *dump.Mapping {
	return &dump.Mapping{
		Start: r.Start, End: r.End, Prot: m.GetProt(), Kind: m.GetKind(), File: m.GetFile(), Memory: m.GetMemory(),
		Offset: m.GetOffset() + r.Start - m.GetStart(), VmFlags: m.GetVmFlags(),
	}
}
