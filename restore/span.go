package restore

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"vps/dump"
	"vps/pager"
)

const pageSize = 4096

// span is a run of pages; in a list they ascend and do not overlap.
type span struct {
	dump.Range
	label
	mapping  *dump.Mapping // in which they lie
	reach    dump.Range    // of all mappings of the same in which they lie
	wanted   int           // by so many processes
	branches int           // of the family, in which they are
}

// label tells pages apart: where two spans with the same label overlap, they have the same pages.
type label struct {
	frame int
	delta uint64 // the address at which the frame's first page would be
	area  int    // what is mapped there
}

func (l label) compare(other label) int {
	return cmp.Or(cmp.Compare(l.frame, other.frame), cmp.Compare(l.delta, other.delta), cmp.Compare(l.area, other.area))
}

// with returns the part of a span in a range, with what another one adds to it, if it has the same pages.
func (s span) with(r dump.Range, other *span) span {
	s.Range = r
	if other != nil && other.label == s.label {
		s.wanted, s.branches = s.wanted+other.wanted, s.branches+other.branches
		s.reach = dump.Range{Start: min(s.reach.Start, other.reach.Start), End: max(s.reach.End, other.reach.End)}
	}
	return s
}

// extent tells where the pages are stored.
func (s span) extent() dump.Extent {
	return dump.Extent{Range: s.Range, Frame: s.frame, Index: int((s.Start - s.delta) / pageSize)}
}

// compare walks through two lists and calls f for each range in which it is the same span of either, nil for none.
func compare(a, b []span, f func(r dump.Range, x, y *span)) {
	for at := uint64(0); ; {
		end := uint64(math.MaxUint64)
		head := func(list *[]span) *span {
			for len(*list) > 0 && (*list)[0].End <= at {
				*list = (*list)[1:]
			}
			if len(*list) == 0 {
				return nil
			}
			s := &(*list)[0]
			if s.Start > at {
				end = min(end, s.Start)
				return nil
			}
			end = min(end, s.End)
			return s
		}
		x, y := head(&a), head(&b)
		if x != nil || y != nil {
			f(dump.Range{Start: at, End: end}, x, y)
		}
		if end == math.MaxUint64 {
			return
		}
		at = end
	}
}

// areas numbers what is mapped: mappings with the same number can be parts of one.
type areas struct {
	numbers  map[string]int
	mappings map[*dump.Mapping]int
}

func newAreas() areas { return areas{make(map[string]int), make(map[*dump.Mapping]int)} }

// of returns the number of what a mapping is of; 0 if its pages cannot be inherited.
func (a areas) of(m *dump.Mapping) int {
	n, ok := a.mappings[m]
	if !ok {
		n = a.number(m)
		a.mappings[m] = n
	}
	return n
}

func (a areas) number(m *dump.Mapping) int {
	if m.GetShared() || hasFlag(m, "dp") || hasFlag(m, "wf") {
		return 0
	}
	name := fmt.Sprintf("%v %v %v", hasFlag(m, "gd"), hasFlag(m, "nr"), hasFlag(m, "hg"))
	switch m.GetKind() {
	case dump.Mapping_ANON:
	case dump.Mapping_FILE, dump.Mapping_MEMORY:
		name += fmt.Sprintf(" %d %d %s", m.GetOffset()-m.GetStart(), m.GetMemory(), m.GetFile().GetPath())
	default:
		return 0
	}
	if a.numbers[name] == 0 {
		a.numbers[name] = len(a.numbers) + 1
	}
	return a.numbers[name]
}

// spans turns ascending extents into spans that lie in one of the ascending mappings each. Zeros are none, and what cannot be
// inherited.
func (a areas) spans(mappings []*dump.Mapping, extents []dump.Extent) []span {
	var list []span
	for _, e := range extents {
		for len(mappings) > 0 && mappings[0].GetEnd() <= e.Start {
			mappings = mappings[1:]
		}
		for _, m := range mappings {
			if e.Frame == dump.Zero || m.GetStart() >= e.End {
				break
			}
			if area := a.of(m); area != 0 {
				all := dump.Range{Start: m.GetStart(), End: m.GetEnd()}
				p := pager.Cut(e, all)
				list = append(list, span{Range: p.Range, mapping: m, reach: all, wanted: 1, label: label{
					frame: p.Frame, delta: p.Start - uint64(p.Index)*pageSize, area: area,
				}})
			}
		}
	}
	return list
}

// change is the way from what a process has inherited to what it shall have.
type change struct {
	kept    []dump.Range  // mappings that stay as they are
	dropped []dump.Range  // of these, pages that are not wanted
	filled  []dump.Extent // pages that are missing
}

// from plans the way from an estate, which may be nil, to mappings and pages.
func (a areas) change(from *estate, mappings []*dump.Mapping, extents []dump.Extent, pages []span) change {
	if from == nil {
		return change{filled: extents}
	}
	c := change{kept: a.common(from.mappings, mappings)}
	var there, others []dump.Range
	compare(from.pages, pages, func(r dump.Range, has, wants *span) {
		switch {
		case has == nil:
		case wants != nil && wants.label == has.label:
			there = append(there, r)
		default:
			others = append(others, r)
		}
	})
	_, c.filled = pager.Divide(extents, there)
	c.dropped = intersect(others, c.kept)
	return c
}

// common returns the ranges in which the same is mapped in both.
func (a areas) common(x, y []*dump.Mapping) []dump.Range {
	var list []dump.Range
	for len(x) > 0 && len(y) > 0 {
		start, end := max(x[0].GetStart(), y[0].GetStart()), min(x[0].GetEnd(), y[0].GetEnd())
		if area := a.of(x[0]); start < end && area != 0 && area == a.of(y[0]) {
			list = append(list, dump.Range{Start: start, End: end})
		}
		if x[0].GetEnd() < y[0].GetEnd() {
			x = x[1:]
		} else {
			y = y[1:]
		}
	}
	return list
}

// sorted returns all ranges of lists in order.
func sorted(lists ...[]dump.Range) []dump.Range {
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b dump.Range) int { return cmp.Compare(a.Start, b.Start) })
	return all
}

// intersect returns what is in both of two ascending lists.
func intersect(x, y []dump.Range) []dump.Range {
	var list []dump.Range
	for len(x) > 0 && len(y) > 0 {
		if r := (dump.Range{Start: max(x[0].Start, y[0].Start), End: min(x[0].End, y[0].End)}); r.Start < r.End {
			list = append(list, r)
		}
		if x[0].End < y[0].End {
			x = x[1:]
		} else {
			y = y[1:]
		}
	}
	return list
}
