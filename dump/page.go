package dump

import (
	"container/heap"
	"fmt"
	"slices"
)

// Range is part of an address space, or of an object's content: [Start, End), multiples of the page size.
type Range struct{ Start, End uint64 }

// Len returns the length in bytes.
func (r Range) Len() uint64 { return r.End - r.Start }

func (r Range) String() string { return fmt.Sprintf("%#x-%#x", r.Start, r.End) }

// maxAddress bounds what a range may reach.
const maxAddress = 1 << 63

func (r Range) check(pageSize uint64) error {
	switch {
	case r.Start >= r.End || r.End > maxAddress:
		return fmt.Errorf("range %v is not ascending", r)
	case (r.Start|r.End)&(pageSize-1) != 0:
		return fmt.Errorf("range %v is not aligned to pages", r)
	}
	return nil
}

// What the Frame of an extent is that is stored nowhere.
const (
	Zero = -1 // it is all zeros
	None = -2 // it is withdrawn; only a [PageFrame] has such extents
)

// Extent is a range with the place where its pages are stored. Two extents at the same
// place hold what was the same page when the snapshot was written.
type Extent struct {
	Range
	Frame int // by order in the file, from 0; or Zero, None
	Index int // of the first page, within the frame
}

// cut returns the part of e that is in r; they overlap.
func (e Extent) cut(r Range, pageSize uint64) Extent {
	if r.Start > e.Start {
		if e.Frame >= 0 {
			e.Index += int((r.Start - e.Start) / pageSize)
		}
		e.Start = r.Start
	}
	e.End = min(e.End, r.End)
	return e
}

// follows tells whether e goes on where prev ends, in addresses and in storage.
func (e Extent) follows(prev Extent, pageSize uint64) bool {
	return e.Start == prev.End && e.Frame == prev.Frame &&
		(e.Frame < 0 || e.Index == prev.Index+int(prev.Len()/pageSize))
}

// overlap returns the run of the ascending extents that r overlaps.
func overlap(extents []Extent, r Range) []Extent {
	first, _ := slices.BinarySearchFunc(extents, r.Start, func(e Extent, start uint64) int {
		if e.End <= start {
			return -1
		}
		return 1
	})
	last := first
	for last < len(extents) && extents[last].Start < r.End {
		last++
	}
	return extents[first:last]
}

// pageLog is what the frames said about the pages of one object, in their order.
type pageLog struct {
	entries  []Extent
	resolved bool // ascending, without overlap
}

func (l *pageLog) add(e Extent) {
	if n := len(l.entries); n > 0 && e.Start < l.entries[n-1].End || e.Frame == None {
		l.resolved = false
	}
	l.entries = append(l.entries, e)
}

// extents returns the pages as they are in the end, ascending: the last one wins.
func (l *pageLog) extents(pageSize uint64) []Extent {
	if !l.resolved {
		l.entries = resolve(l.entries, pageSize)
		l.resolved = true
	}
	return l.entries
}

// resolve sweeps over the entries by address and keeps those under the sweep in a heap, the last one on top.
// Where that one is a withdrawal nothing is left.
func resolve(entries []Extent, pageSize uint64) []Extent {
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case entries[a].Start < entries[b].Start:
			return -1
		case entries[a].Start > entries[b].Start:
			return 1
		}
		return 0
	})
	var out []Extent
	var under latest
	var at uint64
	for next := 0; next < len(order) || len(under) > 0; {
		if len(under) == 0 {
			at = entries[order[next]].Start
		}
		for ; next < len(order) && entries[order[next]].Start <= at; next++ {
			heap.Push(&under, order[next])
		}
		top := entries[under[0]]
		if top.End <= at {
			heap.Pop(&under)
			continue
		}
		piece := Range{at, top.End}
		if next < len(order) {
			piece.End = min(piece.End, entries[order[next]].Start)
		}
		at = piece.End
		if top.Frame == None {
			continue
		}
		e := top.cut(piece, pageSize)
		if n := len(out); n > 0 && e.follows(out[n-1], pageSize) {
			out[n-1].End = e.End
		} else {
			out = append(out, e)
		}
	}
	return out
}

// latest is a heap of positions, the highest first.
type latest []int

func (h latest) Len() int           { return len(h) }
func (h latest) Less(i, j int) bool { return h[i] > h[j] }
func (h latest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *latest) Push(x any)        { *h = append(*h, x.(int)) }
func (h *latest) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
