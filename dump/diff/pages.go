package diff

import (
	"cmp"
	"context"
	"encoding/json"
	"hash/maphash"
	"slices"

	"vps/dump"
	"vps/dump/page"
)

// Pages tells how the pages of an object differ. The ranges are at most maxRanges of each kind, the first ones.
type Pages struct {
	Record
	Changed uint64 `json:"changed_pages"`
	Added   uint64 `json:"added_pages"`   // a had none there
	Removed uint64 `json:"removed_pages"` // b has none there

	ChangedRanges Ranges `json:"changed"`
	AddedRanges   Ranges `json:"added"`
	RemovedRanges Ranges `json:"removed"`
}

// Ranges are ascending.
type Ranges []dump.Range

const maxRanges = 1 << 16

// MarshalJSON writes addresses as strings, as showdump does.
func (r Ranges) MarshalJSON() ([]byte, error) {
	type span struct {
		Start uint64 `json:"start,string"`
		End   uint64 `json:"end,string"`
	}
	spans := make([]span, len(r))
	for i, one := range r {
		spans[i] = span{one.Start, one.End}
	}
	return json.Marshal(spans)
}

func (r *Ranges) add(one dump.Range) {
	if n := len(*r); n > 0 && (*r)[n-1].End == one.Start {
		(*r)[n-1].End = one.End
	} else if n < maxRanges {
		*r = append(*r, one)
	}
}

// pair is a range with what both snapshots have there.
type pair struct {
	dump.Range
	a, b  *dump.Extent // nil: nothing
	first int          // its first page, among those of its batch
}

// maxBatch bounds how many pages are compared at a time. Of each one sum is kept, so that a frame is read only once.
const maxBatch = 1 << 16

// pageComparer compares the pages of one object after the other.
type pageComparer struct {
	a, b             *dump.Snapshot
	framesA, framesB []*dump.Frame
	pageSize         uint64
	seed             maphash.Seed

	ctx   context.Context
	key   dump.Key
	batch []pair
	size  int // of the batch, in pages
	out   Pages
}

func newPageComparer(a, b *dump.Snapshot) *pageComparer {
	return &pageComparer{
		a: a, b: b, framesA: a.Frames(), framesB: b.Frames(),
		pageSize: uint64(a.Header().GetPageSize()), seed: maphash.MakeSeed(),
	}
}

func (c *pageComparer) compare(ctx context.Context, k dump.Key) (Pages, error) {
	c.ctx, c.key, c.out = ctx, k, Pages{}
	for p := range pairs(c.a.Extents(k), c.b.Extents(k), c.pageSize) {
		if err := c.add(p); err != nil {
			return Pages{}, err
		}
	}
	err := c.flush()
	return c.out, err
}

// pairs yields the ranges in which one list or both have pages, cut so that each is in no more than one extent of a list.
func pairs(a, b []dump.Extent, pageSize uint64) func(yield func(pair) bool) {
	return func(yield func(pair) bool) {
		for len(a) > 0 || len(b) > 0 {
			var p pair
			switch {
			case len(b) == 0 || len(a) > 0 && a[0].Start < b[0].Start:
				p.Range = a[0].Range
				if len(b) > 0 {
					p.End = min(p.End, b[0].Start)
				}
				p.a = &a[0]
			case len(a) == 0 || b[0].Start < a[0].Start:
				p.Range = b[0].Range
				if len(a) > 0 {
					p.End = min(p.End, a[0].Start)
				}
				p.b = &b[0]
			default:
				p.Range = dump.Range{Start: a[0].Start, End: min(a[0].End, b[0].End)}
				p.a, p.b = &a[0], &b[0]
			}
			taken := p
			if p.a != nil {
				e := p.a.Cut(p.Range, pageSize)
				taken.a = &e
				a = rest(a, p.End, pageSize)
			}
			if p.b != nil {
				e := p.b.Cut(p.Range, pageSize)
				taken.b = &e
				b = rest(b, p.End, pageSize)
			}
			if !yield(taken) {
				return
			}
		}
	}
}

// rest takes what ends at an address off the front of a list, which it changes.
func rest(list []dump.Extent, at, pageSize uint64) []dump.Extent {
	if list[0].End <= at {
		return list[1:]
	}
	list[0] = list[0].Cut(dump.Range{Start: at, End: list[0].End}, pageSize)
	return list
}

func (c *pageComparer) add(p pair) error {
	pages := p.Len() / c.pageSize
	switch {
	case p.b == nil:
		c.out.Removed += pages
		c.out.RemovedRanges.add(p.Range)
	case p.a == nil:
		c.out.Added += pages
		c.out.AddedRanges.add(p.Range)
	case !c.samePlace(p.a, p.b):
		p.first = c.size
		c.batch = append(c.batch, p)
		if c.size += int(pages); c.size >= maxBatch {
			return c.flush()
		}
	}
	return nil
}

// samePlace tells whether two extents are the same without a look at their pages: zero, or out of frames that are alike.
func (c *pageComparer) samePlace(a, b *dump.Extent) bool {
	if a.Frame == page.Zero || b.Frame == page.Zero {
		return a.Frame == b.Frame
	}
	was, is := c.framesA[a.Frame], c.framesB[b.Frame]
	return was.Digest == is.Digest && was.Codec == is.Codec && a.Index == b.Index
}

// flush compares the pages of the batch.
func (c *pageComparer) flush() error {
	was, err := c.sums(c.a, func(p pair) *dump.Extent { return p.a })
	if err != nil {
		return err
	}
	is, err := c.sums(c.b, func(p pair) *dump.Extent { return p.b })
	if err != nil {
		return err
	}
	for _, p := range c.batch {
		for i := range p.Len() / c.pageSize {
			if was[p.first+int(i)] != is[p.first+int(i)] {
				at := p.Start + i*c.pageSize
				c.out.Changed++
				c.out.ChangedRanges.add(dump.Range{Start: at, End: at + c.pageSize})
			}
		}
	}
	c.batch, c.size = c.batch[:0], 0
	return nil
}

// sums returns a sum of each page of the batch in one of the snapshots, which is read in the order of its frames.
func (c *pageComparer) sums(s *dump.Snapshot, of func(pair) *dump.Extent) ([]uint64, error) {
	order := slices.Clone(c.batch)
	slices.SortFunc(order, func(p, q pair) int {
		return cmp.Or(cmp.Compare(of(p).Frame, of(q).Frame), cmp.Compare(of(p).Index, of(q).Index))
	})
	sums := make([]uint64, c.size)
	buf := make([]byte, c.pageSize)
	for _, p := range order {
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		for i := range p.Len() / c.pageSize {
			if err := s.ReadPages(c.key, p.Start+i*c.pageSize, buf); err != nil {
				return nil, err
			}
			sums[p.first+int(i)] = maphash.Bytes(c.seed, buf)
		}
	}
	return sums, nil
}
