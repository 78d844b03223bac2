// Package page has the arithmetic of pages: ranges of them, where each is stored, and what counts when they were told
// about several times. Package dump gives its types names of their own.
package page

import (
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

// Check tells what is wrong with a range.
func (r Range) Check(pageSize uint64) error {
	switch {
	case r.Start >= r.End || r.End > maxAddress:
		return fmt.Errorf("range %v is not ascending", r)
	case (r.Start|r.End)&(pageSize-1) != 0:
		return fmt.Errorf("range %v is not aligned to pages", r)
	}
	return nil
}

// CheckAll tells what is wrong with ranges that are to ascend without overlap.
func CheckAll(ranges []Range, pageSize uint64) error {
	var last uint64
	for _, r := range ranges {
		if err := r.Check(pageSize); err != nil {
			return err
		}
		if r.Start < last {
			return fmt.Errorf("range %v is out of order", r)
		}
		last = r.End
	}
	return nil
}

// Split takes up to size bytes off the front of ranges, which it changes.
func Split(ranges []Range, size uint64) (part, rest []Range) {
	for i, r := range ranges {
		if r.Len() > size {
			if size > 0 {
				part = append(part, Range{r.Start, r.Start + size})
				ranges[i].Start += size
			}
			return part, ranges[i:]
		}
		part = append(part, r)
		size -= r.Len()
	}
	return part, nil
}

// What the Frame of an extent is that is stored nowhere.
const (
	Zero = -1 // it is all zeros
	None = -2 // it is withdrawn; only a frame that comes in a stream has such extents
)

// Extent is a range with the place where its pages are stored. Two extents at the same
// place hold what was the same page when the snapshot was written.
type Extent struct {
	Range
	Frame int // by order in the file, from 0; or Zero, None
	Index int // of the first page, within the frame
}

// Cut returns the part of e that is in r; they overlap.
func (e Extent) Cut(r Range, pageSize uint64) Extent {
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

// Overlap returns the run of the ascending extents that r overlaps.
func Overlap(extents []Extent, r Range) []Extent {
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

// Append appends a page that is stored nowhere yet, joined with the last extent if it goes on there.
func Append(extents []Extent, r Range) []Extent {
	if n := len(extents); n > 0 && extents[n-1].End == r.Start {
		extents[n-1].End = r.End
		return extents
	}
	return append(extents, Extent{Range: r, Frame: Zero})
}
