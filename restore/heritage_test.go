package restore

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/birth"
)

// stored is where a page is.
type stored struct{ frame, index int }

// model is what a stub has in its memory, by address.
type model map[uint64]stored

func (m model) fill(t *testing.T, extents []dump.Extent) int {
	n := 0
	for _, e := range extents {
		for at := e.Start; at < e.End && e.Frame != dump.Zero; at += pageSize {
			if _, ok := m[at]; ok {
				t.Errorf("page %#x is filled, but it is there", at)
			}
			m[at] = stored{e.Frame, e.Index + int((at-e.Start)/pageSize)}
			n++
		}
	}
	return n
}

// apply lets a stub go the way that a change describes.
func (m model) apply(t *testing.T, c change) int {
	maps.DeleteFunc(m, func(at uint64, _ stored) bool { return !within(c.kept, at) || within(c.dropped, at) })
	return m.fill(t, c.filled)
}

func within(ranges []dump.Range, at uint64) bool {
	for _, r := range ranges {
		if r.Start <= at && at < r.End {
			return true
		}
	}
	return false
}

// TestHeritage plans families at random, and follows the plan: each process gets what is recorded, and pages that are shared
// are filled in once, unless a snapshot takes too much work.
func TestHeritage(t *testing.T) {
	for name, test := range map[string]struct{ work, least, most int }{"shared": {maxHeritageWork, 100, 105}, "too much work": {50, 150, 500}} {
		t.Run(name, func(t *testing.T) {
			filled, pages := 0, 0
			for seed := range uint64(200) {
				f, p := testHeritage(t, rand.New(rand.NewPCG(seed, 1)), test.work)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
				filled, pages = filled+f, pages+p
			}
			if percent := 100 * filled / pages; percent < test.least || percent > test.most {
				t.Errorf("%d pages are filled to have %d", filled, pages)
			}
		})
	}
}

// testHeritage lets processes be born and change their memory.
func testHeritage(t *testing.T, rnd *rand.Rand, work int) (filled, pages int) {
	const processes, space = 12, 64
	type life struct {
		mappings []*dump.Mapping
		pages    map[uint64]int // what is there, by address
	}
	all := map[int]*life{1: {someMappings(rnd, space), make(map[uint64]int)}}
	set := &object.Set{Processes: make(map[uint64]*dump.Process), Mms: make(map[uint64]*dump.Mm)}
	births := birth.Stage{0: {{Op: birth.Birth, PID: 1}}}
	last := 0
	for pid := 1; pid <= processes; {
		who := 1 + rnd.IntN(len(all))
		m := all[who]
		switch rnd.IntN(8) {
		case 0:
			if pid++; pid <= processes {
				births[who] = append(births[who], birth.Step{Op: birth.Birth, PID: pid})
				all[pid] = &life{m.mappings, maps.Clone(m.pages)}
			}
		case 1:
			if rnd.IntN(10) == 0 { // it executes something else
				*m = life{someMappings(rnd, space), make(map[uint64]int)}
			} else if n := rnd.IntN(len(m.mappings)); len(m.mappings) > 1 {
				gone := m.mappings[n]
				m.mappings = slices.Delete(slices.Clone(m.mappings), n, n+1)
				maps.DeleteFunc(m.pages, func(at uint64, _ int) bool { return at >= gone.Start && at < gone.End })
			}
		default:
			what := m.mappings[rnd.IntN(len(m.mappings))]
			first := rnd.Uint64N((what.End - what.Start) / pageSize)
			for at := what.Start + first*pageSize; at < what.End && rnd.IntN(8) > 0; at += pageSize {
				last++
				m.pages[at] = last
			}
		}
	}
	var file bytes.Buffer
	w, err := dump.NewWriter(&file, &dump.Header{PageSize: pageSize}, dump.Plain)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	owner := make(map[int]uint64)
	for pid := 1; pid <= processes; pid++ {
		if pid == 5 {
			continue // a helper, in place of one who is dead
		}
		id := uint64(pid)
		mm := &dump.Mm{Id: id, Mappings: all[pid].mappings}
		set.Processes[id], set.Mms[id] = &dump.Process{Pid: uint32(pid), Mm: id}, mm
		must(w.Put(id, mm))
		for at, page := range all[pid].pages {
			r := []dump.Range{{Start: at, End: at + pageSize}}
			switch first := owner[page]; {
			case first != 0:
				must(w.WriteShared(mmKey(id), r, mmKey(first), 0))
			case rnd.IntN(10) == 0:
				must(w.WriteZeros(mmKey(id), r))
			default:
				owner[page] = id
				must(w.WritePages(mmKey(id), r, func(buf []byte, _ []dump.Range) error { buf[0] = 1; return nil }))
			}
		}
	}
	must(w.Close())
	s, err := dump.Open(bytes.NewReader(file.Bytes()), int64(file.Len()))
	must(err)

	h := newHeritage(set, s, births, work)
	memory := map[int]model{0: {}}
	given := make(map[int]bool)
	for _, wave := range h.waves {
		for _, pid := range wave {
			given[pid] = true
		}
	}
	for _, pid := range h.order() {
		memory[pid] = maps.Clone(memory[h.maker[pid]])
		if given[pid] {
			e := h.estates[pid]
			var extents []dump.Extent
			for _, s := range e.pages {
				extents = append(extents, s.extent())
			}
			filled += memory[pid].apply(t, h.areas.change(h.inherited(pid), e.mappings, extents, e.pages))
		}
	}
	distinct := make(map[stored]bool)
	for pid := range set.Processes {
		mm, extents := set.Mms[pid], s.Extents(mmKey(pid))
		filled += memory[int(pid)].apply(t, h.areas.change(h.estates[int(pid)], mm.Mappings, extents, h.areas.spans(mm.Mappings, extents)))
		want := make(model)
		want.fill(t, extents)
		for _, page := range want {
			distinct[page] = true
		}
		if !maps.Equal(memory[int(pid)], want) {
			t.Errorf("pid %d: %d pages, want %d, or others", pid, len(memory[int(pid)]), len(want))
		}
	}
	return filled, len(distinct)
}

// someMappings maps parts of a space of pages, some of them of files.
func someMappings(rnd *rand.Rand, space uint64) []*dump.Mapping {
	var list []*dump.Mapping
	for at := uint64(0); at < space; {
		end := min(space, at+16)
		if rnd.IntN(4) == 0 {
			end = min(space, at+1+rnd.Uint64N(20))
		}
		m := &dump.Mapping{Start: at * pageSize, End: end * pageSize, Prot: unix.PROT_READ | unix.PROT_WRITE}
		switch rnd.IntN(12) {
		case 0:
			m.Kind, m.File, m.Offset = dump.Mapping_FILE, &dump.FileRef{Path: "/lib"}, at*pageSize
		case 1:
			m.VmFlags = "nr"
		case 2:
			m.VmFlags = "wf"
		}
		if rnd.IntN(10) > 0 || list == nil {
			list = append(list, m)
		}
		at = end
	}
	return list
}
