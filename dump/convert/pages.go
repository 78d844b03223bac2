package convert

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"vps/dump"
)

// place is where pages of an object are stored.
type place struct {
	key dump.Key
	dump.Extent
}

// copier copies pages. Each stored page is written for the first object that has it, its owner; the others share it.
type copier struct {
	ctx      context.Context
	w        *dump.Writer
	s        *dump.Snapshot
	pageSize uint64
	frames   []*dump.Frame
	waiting  []place // owners' places that are to be written together
	size     uint64  // of those, in bytes
	runs     int     // of links, written since the last flush
	links    int     // how many more there may be
}

// pages copies the pages of all objects. Frames are read once, in the order of the snapshot.
func pages(ctx context.Context, w *dump.Writer, s *dump.Snapshot, progress func(done, total uint64)) error {
	c := &copier{ctx: ctx, w: w, s: s, frames: s.Frames(), pageSize: uint64(s.Header().GetPageSize())}
	var places []place
	var done, total uint64
	for _, k := range s.Keys() {
		for _, e := range s.Extents(k) {
			places = append(places, place{k, e})
			if e.Frame != dump.Zero {
				total += e.Len()
			}
		}
	}
	// What is shared comes in as many pieces as it has owners: few, but in a file that means harm.
	c.links = 4*len(places) + 64<<10
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.Frame, b.Frame), cmp.Compare(a.Index, b.Index), compareLengths(a, b), compareAddresses(a, b))
	})
	for len(places) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := 1
		for n < len(places) && places[n].Frame == places[0].Frame {
			n++
		}
		copyPlaces := c.frame
		if places[0].Frame == dump.Zero {
			copyPlaces = c.zeros
		} else if progress != nil {
			for _, p := range places[:n] {
				done += p.Len()
			}
			progress(done, total)
		}
		if err := copyPlaces(places[:n]); err != nil {
			return err
		}
		places = places[n:]
	}
	return c.store()
}

// compareLengths puts long places of stored pages first, so that few are divided among owners.
func compareLengths(a, b place) int {
	if a.Frame == dump.Zero {
		return 0
	}
	return cmp.Compare(b.Len(), a.Len())
}

func compareAddresses(a, b place) int {
	return cmp.Or(a.key.Compare(b.key), cmp.Compare(a.Start, b.Start))
}

// zeros writes places that are zero.
func (c *copier) zeros(places []place) error {
	for i := 0; i < len(places); {
		key := places[i].key
		var ranges []dump.Range
		for ; i < len(places) && places[i].key == key; i++ {
			ranges = append(ranges, places[i].Range)
		}
		if err := c.w.WriteZeros(key, ranges); err != nil {
			return err
		}
	}
	return nil
}

// frame writes the pages of one frame, whose places ascend by index.
func (c *copier) frame(places []place) error {
	owners := c.owners(places)
	for _, p := range owners {
		if err := c.own(p); err != nil {
			return err
		}
	}
	slices.SortFunc(places, compareAddresses)
	l := links{copier: c}
	for _, p := range places {
		if err := l.add(p, owners); err != nil {
			return err
		}
	}
	return l.flush()
}

// owners returns the places, or parts of them, that have each page for the first time. They ascend by index without overlap.
func (c *copier) owners(places []place) []place {
	var owners []place
	next := 0 // the first index that has no owner yet
	for _, p := range places {
		end := p.Index + int(p.Len()/c.pageSize)
		if end <= next {
			continue
		}
		from := p.Start + uint64(max(next-p.Index, 0))*c.pageSize
		owners = append(owners, place{p.key, p.Cut(dump.Range{Start: from, End: p.End}, c.pageSize)})
		next = end
	}
	return owners
}

// own adds a place to those that are to be written together: what was scattered in many frames comes into one.
func (c *copier) own(p place) error {
	if n := len(c.waiting); n > 0 {
		last := c.waiting[n-1]
		if last.key != p.key || p.Start < last.End || c.size+p.Len() > dump.MaxFrame {
			if err := c.store(); err != nil {
				return err
			}
		}
	}
	c.waiting = append(c.waiting, p)
	c.size += p.Len()
	return nil
}

// store writes the places that wait.
func (c *copier) store() error {
	if len(c.waiting) == 0 {
		return nil
	}
	key := c.waiting[0].key
	ranges := make([]dump.Range, len(c.waiting))
	for i, p := range c.waiting {
		ranges[i] = p.Range
	}
	c.waiting, c.size = c.waiting[:0], 0
	return c.w.WritePages(key, ranges, func(buf []byte, ranges []dump.Range) error {
		for _, r := range ranges {
			if err := c.s.ReadPages(key, r.Start, buf[:r.Len()]); err != nil {
				return err
			}
			buf = buf[r.Len():]
		}
		return c.ctx.Err()
	})
}

// links is a run of pages of one object that are those of another one, all moved by the same distance.
type links struct {
	*copier
	key, from dump.Key
	shift     int64
	ranges    []dump.Range
}

const (
	maxLinks   = 4096 // ranges that are written together
	maxWaiting = 64   // runs of them on their way: the writer takes any number
)

// add adds what a place has of pages that others own.
func (l *links) add(p place, owners []place) error {
	first, _ := slices.BinarySearchFunc(owners, p.Index, func(o place, index int) int {
		if o.Index+int(o.Len()/l.pageSize) <= index {
			return -1
		}
		return 1
	})
	for _, o := range owners[first:] {
		at := p.Start + uint64(max(o.Index-p.Index, 0))*l.pageSize
		if at >= p.End {
			break
		}
		from := o.Start + uint64(max(p.Index-o.Index, 0))*l.pageSize
		r := dump.Range{Start: at, End: at + min(p.End-at, o.End-from)}
		if o.key == p.key && from == at {
			continue // it is the owner
		}
		if l.links--; l.links < 0 {
			f := l.frames[p.Frame]
			return &dump.FormatError{Offset: f.Offset, What: fmt.Sprintf("%s: it is shared in too many pieces", f), Class: dump.ErrLimit}
		}
		if shift := int64(from - at); l.key != p.key || l.from != o.key || l.shift != shift || len(l.ranges) == maxLinks {
			if err := l.flush(); err != nil {
				return err
			}
			l.key, l.from, l.shift = p.key, o.key, shift
		}
		l.ranges = append(l.ranges, r)
	}
	return nil
}

// flush writes the run. The pages themselves come first.
func (l *links) flush() error {
	if len(l.ranges) == 0 {
		return nil
	}
	if err := l.store(); err != nil {
		return err
	}
	if err := l.w.WriteShared(l.key, l.ranges, l.from, l.shift); err != nil {
		return err
	}
	l.ranges = nil
	if l.runs++; l.runs < maxWaiting {
		return l.ctx.Err()
	}
	l.runs = 0
	return l.w.Flush()
}
