package page

import (
	"container/heap"
	"slices"
)

// Log is what the frames said about the pages of one object, in their order. Its zero value is empty.
type Log struct {
	entries []Extent
	tangled bool // not ascending, or with overlap
}

// Add adds what the next frame says.
func (l *Log) Add(e Extent) {
	if n := len(l.entries); n > 0 && e.Start < l.entries[n-1].End || e.Frame == None {
		l.tangled = true
	}
	l.entries = append(l.entries, e)
}

// Extents returns the pages as they are in the end, ascending: the last one wins. They stay the log's.
func (l *Log) Extents(pageSize uint64) []Extent {
	if l.tangled {
		l.entries = resolve(l.entries, pageSize)
		l.tangled = false
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
		e := top.Cut(piece, pageSize)
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
