package dump

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"vps/dump/page"
)

// frameBuffer holds the pages of one frame.
type frameBuffer struct {
	frame  *Frame
	stored []byte
	pages  []byte // stored, or unpacked
	unpack []byte
}

// readFrame reads the pages of a frame into b, unless they are there.
func (s *Snapshot) readFrame(b *frameBuffer, number int) ([]byte, error) {
	f := s.ledger.frames[number]
	if b.frame == f {
		return b.pages, nil
	}
	b.frame = nil
	if cap(b.stored) < f.Size {
		b.stored = make([]byte, f.Size) // Open saw that many bytes there
	}
	b.stored = b.stored[:f.Size]
	if _, err := s.r.ReadAt(b.stored, f.Start); err != nil {
		return nil, fmt.Errorf("read snapshot at offset %d: %w", f.Start, err)
	}
	if err := f.check(b.stored); err != nil {
		return nil, err
	}
	pages, err := unpack(&s.decoder, f, b.stored, &b.unpack, s.ledger.pageSize)
	if err != nil {
		return nil, err
	}
	b.frame, b.pages = f, pages
	return pages, nil
}

// Frames returns the frames in the order of the file, those among them that no longer count too.
func (s *Snapshot) Frames() []*Frame { return slices.Clone(s.ledger.frames) }

// Extents returns the pages of the object k, ascending and without overlap: where frames gave a page several
// times, the last one. A page that is in no extent was never written; that is not the same as a zero one.
func (s *Snapshot) Extents(k Key) []Extent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ledger.extents(k))
}

// Run is pages that follow each other.
type Run struct {
	Range
	Data []byte // nil: they are zero
}

// Pages yields all pages of the object k, in the order of the file, so that each frame is read once: first
// those that are zero. Data is valid until the next turn. An error is the last thing that it yields.
func (s *Snapshot) Pages(k Key) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		var buf frameBuffer
		for _, e := range s.stored(k) {
			run := Run{Range: e.Range}
			if e.Frame != Zero {
				pages, err := s.readFrame(&buf, e.Frame)
				if err != nil {
					yield(run, err)
					return
				}
				start := e.Index * int(s.ledger.pageSize)
				run.Data = pages[start : start+int(e.Len())]
			}
			if !yield(run, nil) {
				return
			}
		}
	}
}

// stored returns the extents of the object k in the order of the file.
func (s *Snapshot) stored(k Key) []Extent {
	extents := s.Extents(k)
	slices.SortFunc(extents, func(a, b Extent) int {
		return cmp.Or(cmp.Compare(a.Frame, b.Frame), cmp.Compare(a.Index, b.Index))
	})
	return extents
}

// ReadPages reads the pages of the object k from start on into buf, whose length and start are multiples of the
// page size. ErrNotFound if one of them was never written.
func (s *Snapshot) ReadPages(k Key, start uint64, buf []byte) error {
	want := Range{Start: start, End: start + uint64(len(buf))}
	if err := want.Check(s.ledger.pageSize); err != nil {
		return fmt.Errorf("read pages of %s: %w", k, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range page.Overlap(s.ledger.extents(k), want) {
		e = e.Cut(want, s.ledger.pageSize)
		if e.Start != start {
			break
		}
		part := buf[:e.Len()]
		buf, start = buf[e.Len():], e.End
		if e.Frame == Zero {
			clear(part)
			continue
		}
		pages, err := s.readFrame(&s.cache, e.Frame)
		if err != nil {
			return err
		}
		copy(part, pages[e.Index*int(s.ledger.pageSize):])
	}
	if len(buf) > 0 {
		return fmt.Errorf("page %#x of %s: %w", start, k, ErrNotFound)
	}
	return nil
}

// Position returns the offset in the file at which the pages of an extent stand one after the other as they
// are; false if they are zero or compressed. Who reads there checks nothing: see [Verify].
func (s *Snapshot) Position(e Extent) (int64, bool) {
	if e.Frame == Zero || s.ledger.frames[e.Frame].Codec != Plain {
		return 0, false
	}
	return s.ledger.frames[e.Frame].Start + int64(e.Index)*int64(s.ledger.pageSize), true
}
