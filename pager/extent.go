package pager

import "vps/dump"

// Divide parts extents into what lies in ranges and what does not. All ascend.
func Divide(extents []dump.Extent, ranges []dump.Range) (in, out []dump.Extent) {
	for _, e := range extents {
		for len(ranges) > 0 && ranges[0].End <= e.Start {
			ranges = ranges[1:]
		}
		for _, r := range ranges {
			if r.Start >= e.End {
				break
			}
			if r.Start > e.Start {
				out = append(out, Cut(e, dump.Range{Start: e.Start, End: r.Start}))
				e = Cut(e, dump.Range{Start: r.Start, End: e.End})
			}
			in = append(in, Cut(e, r))
			if r.End >= e.End {
				e.Start = e.End
				break
			}
			e = Cut(e, dump.Range{Start: r.End, End: e.End})
		}
		if e.Start < e.End {
			out = append(out, e)
		}
	}
	return in, out
}

// Cut returns the part of an extent that lies in a range; they overlap.
func Cut(e dump.Extent, r dump.Range) dump.Extent {
	if r.Start > e.Start {
		if e.Frame != dump.Zero {
			e.Index += int((r.Start - e.Start) / pageSize)
		}
		e.Start = r.Start
	}
	e.End = min(e.End, r.End)
	return e
}

const hugeSize = 2 << 20

// hugeAreas returns the areas, each as large as a huge page and aligned like one, in the given ranges, of which every page is in
// an extent: a huge page there takes no memory that the process did not have. All ascend.
func hugeAreas(ranges []dump.Range, extents []dump.Extent) []dump.Range {
	var areas []dump.Range
	for _, run := range joined(extents) {
		for len(ranges) > 0 && ranges[0].End <= run.Start {
			ranges = ranges[1:]
		}
		for _, r := range ranges {
			if r.Start >= run.End {
				break
			}
			start := (max(r.Start, run.Start) + hugeSize - 1) &^ (hugeSize - 1)
			if end := min(r.End, run.End) &^ (hugeSize - 1); start < end {
				areas = append(areas, dump.Range{Start: start, End: end})
			}
		}
	}
	return areas
}

// joined returns the ranges of ascending extents, those that touch as one.
func joined(extents []dump.Extent) []dump.Range {
	var list []dump.Range
	for _, e := range extents {
		list = appendRange(list, e.Start, e.End)
	}
	return list
}
