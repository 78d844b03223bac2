package pager

import (
	"cmp"
	"slices"

	"vps/dump"
)

// Lists of ranges are ascending and without overlap.

// length returns how many bytes ranges have together.
func length(list []dump.Range) uint64 {
	var n uint64
	for _, r := range list {
		n += r.Len()
	}
	return n
}

// union returns what is in a or b.
func union(a, b []dump.Range) []dump.Range {
	list := make([]dump.Range, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		next := &a
		if len(a) == 0 || len(b) > 0 && b[0].Start < a[0].Start {
			next = &b
		}
		r := (*next)[0]
		*next = (*next)[1:]
		if n := len(list); n > 0 && list[n-1].End >= r.Start {
			list[n-1].End = max(list[n-1].End, r.End)
		} else {
			list = append(list, r)
		}
	}
	return list
}

// intersect returns what is in a and in b.
func intersect(a, b []dump.Range) []dump.Range { return subtract(a, subtract(a, b)) }

// sort puts ranges in order.
func sort(list []dump.Range) {
	slices.SortFunc(list, func(a, b dump.Range) int { return cmp.Compare(a.Start, b.Start) })
}

// subtract returns what is in a and not in b.
func subtract(a, b []dump.Range) []dump.Range {
	var list []dump.Range
	for _, r := range a {
		for len(b) > 0 && b[0].End <= r.Start {
			b = b[1:]
		}
		for _, hole := range b {
			if hole.Start >= r.End {
				break
			}
			if hole.Start > r.Start {
				list = append(list, dump.Range{Start: r.Start, End: hole.Start})
			}
			r.Start = max(r.Start, hole.End)
			if r.Start >= r.End {
				break
			}
		}
		if r.Start < r.End {
			list = append(list, r)
		}
	}
	return list
}

// shift moves ranges.
func shift(list []dump.Range, by uint64) []dump.Range {
	moved := make([]dump.Range, len(list))
	for i, r := range list {
		moved[i] = dump.Range{Start: r.Start + by, End: r.End + by}
	}
	return moved
}

// split cuts ranges into parts of at most size bytes each.
func split(ranges []dump.Range, size uint64) [][]dump.Range {
	var parts [][]dump.Range
	var part []dump.Range
	room := size
	for _, r := range ranges {
		for r.Len() > 0 {
			piece := dump.Range{Start: r.Start, End: min(r.End, r.Start+room)}
			part = append(part, piece)
			r.Start = piece.End
			if room -= piece.Len(); room == 0 {
				parts, part, room = append(parts, part), nil, size
			}
		}
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts
}
