package lazy

import (
	"cmp"
	"maps"
	"slices"

	"vps/dump"
	"vps/pager"
)

const pageSize = 4096

// memory is the address space of a process, as far as pages of it are in the snapshot.
type memory struct {
	number int // of its userfaultfd in the keeper
	fault  int // the same here, -1 if it is not yet
	gone   bool

	pages   []dump.Extent         // where they are stored, ascending by address; those that have come to be there too
	frames  map[int][]dump.Extent // the same by frame; nil if it is to be made anew
	changes int
}

func newMemory(number int) *memory { return &memory{number: number, fault: -1} }

func (m *memory) clone(number int) *memory {
	return &memory{number: number, fault: -1, pages: slices.Clone(m.pages), frames: maps.Clone(m.frames)}
}

func (m *memory) changed() {
	m.frames = nil
	m.changes++
}

// remove forgets what was to come to a range.
func (m *memory) remove(r dump.Range) {
	if _, end, ok := m.find(r.Start); !ok && end >= r.End {
		return
	}
	_, m.pages = pager.Divide(m.pages, []dump.Range{r})
	m.changed()
}

// move lets what was to come to one range come to another one.
func (m *memory) move(from, to, size uint64) {
	moved, rest := pager.Divide(m.pages, []dump.Range{{Start: from, End: from + size}})
	_, rest = pager.Divide(rest, []dump.Range{{Start: to, End: to + size}})
	for _, e := range moved {
		e.Start, e.End = e.Start-from+to, e.End-from+to
		rest = append(rest, e)
	}
	slices.SortFunc(rest, func(a, b dump.Extent) int { return cmp.Compare(a.Start, b.Start) })
	m.pages = rest
	m.changed()
}

// find returns the extent of an address; false if it has none, and how far that is so.
func (m *memory) find(address uint64) (e dump.Extent, end uint64, ok bool) {
	i, _ := slices.BinarySearchFunc(m.pages, address, func(e dump.Extent, at uint64) int {
		if e.End <= at {
			return -1
		}
		return 1
	})
	switch {
	case i == len(m.pages):
		return e, ^uint64(0), false
	case m.pages[i].Start > address:
		return e, m.pages[i].Start, false
	}
	return m.pages[i], m.pages[i].End, true
}

// of returns the pages that are stored in a frame.
func (m *memory) of(frame int) []dump.Extent {
	if m.frames == nil {
		m.frames = make(map[int][]dump.Extent)
		for _, e := range m.pages {
			m.frames[e.Frame] = append(m.frames[e.Frame], e)
		}
	}
	return m.frames[frame]
}
