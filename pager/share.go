package pager

import (
	"encoding/binary"
	"fmt"
	"io"

	"vps/dump"
)

// Processes that fork(2) share pages until one of them writes. A snapshot stores such a page once, and says of the others that
// they are the same, so that a restore can share them again. Which frame of the machine's memory a page is in is read
// from /proc/PID/pagemap; without CAP_SYS_ADMIN it does not show, and every page is stored.

// frames calls found for those pages of ranges that other address spaces may have too, with the number of their frame.
func (s *Scanner) frames(ranges []dump.Range, found func(at, frame uint64)) error {
	if s.entries == nil {
		s.entries = make([]byte, 64<<10)
	}
	for _, r := range ranges {
		for at := r.Start; at < r.End; {
			part := s.entries[:min(uint64(len(s.entries)), (r.End-at)/pageSize*8)]
			if _, err := s.pagemap.ReadAt(part, int64(at/pageSize*8)); err != nil && err != io.EOF {
				return fmt.Errorf("read page map at %#x: %w", at, err)
			}
			for ; len(part) > 0; part = part[8:] {
				entry := binary.LittleEndian.Uint64(part)
				frame := entry & pageFrame
				if entry&(pagePresent|pageFile|pageExclusive) == pagePresent && frame != 0 {
					found(at, frame)
				}
				at += pageSize
			}
		}
	}
	return nil
}

// unseen takes pages off a list that have been found for another address space in this copy, or one before. That is a guess,
// since processes run: what is not copied now is looked at again when they are frozen.
func (c *Copy) unseen(scanner *Scanner, sp *space, found []dump.Range) ([]dump.Range, error) {
	var seen []dump.Range
	err := scanner.frames(found, func(at, frame uint64) {
		if owner, ok := c.owners[frame]; !ok {
			c.owners[frame] = sp
		} else if owner != sp {
			seen = appendRange(seen, at, at+pageSize)
		}
	})
	sp.sound = subtract(sp.sound, seen)
	return subtract(found, seen), err
}

// place is a page of an address space.
type place struct {
	space *space
	at    uint64
}

// source is where pages are that others are the same as: shift bytes further, in the address space from.
type source struct {
	from  *space
	shift uint64
}

// share takes pages off what has to be copied of frozen address spaces that are in the snapshot for another one, or will be.
//
// The kernel may move a page at any time and use its frame for another one. So a page counts as the same as another one if it is in
// a frame in which that one was before and still is afterwards.
func share(list []*space) error {
	places := make(map[uint64]place) // by frame: what the others refer to
	for _, sp := range list {
		if err := sp.refer(places, true); err != nil {
			return err
		}
	}
	if len(places) == 0 {
		return nil
	}
	kept, err := preferKept(list, places)
	if err != nil {
		return err
	}
	if kept {
		for _, sp := range list {
			if err := sp.refer(places, false); err != nil {
				return err
			}
		}
	}
	return confirm(list, places)
}

// refer finds the pages to be copied that are the same as others. With add set, others may refer to those that are not.
func (sp *space) refer(places map[uint64]place, add bool) error {
	sp.same = make(map[source][]dump.Range)
	return sp.scanner.frames(sp.need, func(at, frame uint64) {
		switch p, ok := places[frame]; {
		case ok && p != place{sp, at}:
			src := source{p.space, p.at - at}
			sp.same[src] = appendRange(sp.same[src], at, at+pageSize)
		case !ok && add:
			places[frame] = place{sp, at}
		}
	})
}

// preferKept lets the others refer to pages that are in the snapshot already, where there are any, and tells whether.
func preferKept(list []*space, places map[uint64]place) (any bool, err error) {
	kept := make(map[uint64]bool)
	for _, sp := range list {
		err := sp.scanner.frames(sp.kept, func(at, frame uint64) {
			if _, ok := places[frame]; ok && !kept[frame] {
				kept[frame] = true
				places[frame] = place{sp, at}
			}
		})
		if err != nil {
			return false, err
		}
	}
	return len(kept) > 0, nil
}

// confirm looks once more at the pages that others refer to, and forgets about those that have moved.
func confirm(list []*space, places map[uint64]place) error {
	sources := make(map[*space][]dump.Range)
	for _, sp := range list {
		for src, ranges := range sp.same {
			sources[src.from] = union(sources[src.from], shift(ranges, src.shift))
		}
	}
	still := make(map[*space][]dump.Range)
	for sp, ranges := range sources {
		err := sp.scanner.frames(ranges, func(at, frame uint64) {
			if places[frame] == (place{sp, at}) {
				still[sp] = appendRange(still[sp], at, at+pageSize)
			}
		})
		if err != nil {
			return err
		}
	}
	for _, sp := range list {
		var same []dump.Range
		for src, ranges := range sp.same {
			ranges = shift(intersect(shift(ranges, src.shift), still[src.from]), -src.shift)
			sp.same[src] = ranges
			same = union(same, ranges)
		}
		sp.need = subtract(sp.need, same)
	}
	return nil
}
