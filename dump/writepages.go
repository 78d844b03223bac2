package dump

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"vps/dump/internal/queue"
	"vps/dump/page"
)

// WritePages writes the pages of ranges of the object k, whose record was written before. It calls fill
// for as many pages at a time as a frame holds, to read the given ranges, one after the other, into
// buf; that may be straight from a process, as process_vm_readv(2) does. Pages that turn out to be zero
// are not stored. If fill fails, WritePages returns that error, and nothing is written of this call's buf.
func (w *Writer) WritePages(k Key, ranges []Range, fill func(buf []byte, ranges []Range) error) error {
	if err := page.CheckAll(ranges, uint64(w.pageSize)); err != nil {
		return fmt.Errorf("write pages of %s: %w", k, err)
	}
	rest := slices.Clone(ranges)
	for len(rest) > 0 {
		var part []Range
		part, rest = page.Split(rest, MaxFrame)
		if err := w.writeFrame(k, part, fill); err != nil {
			return err
		}
	}
	return nil
}

// WriteZeros writes that ranges of the object k are zero: what was stored there before no longer counts.
func (w *Writer) WriteZeros(k Key, ranges []Range) error {
	if err := page.CheckAll(ranges, uint64(w.pageSize)); err != nil {
		return fmt.Errorf("write pages of %s: %w", k, err)
	}
	extents := unstored(ranges, Zero)
	return w.queue.Submit(queue.Job{Do: func() error { return w.emitRanges(k, Zeros, extents) }})
}

// WithdrawPages takes back what was written about ranges of the object k: it is as if they had never been told about.
func (w *Writer) WithdrawPages(k Key, ranges []Range) error {
	if err := page.CheckAll(ranges, uint64(w.pageSize)); err != nil {
		return fmt.Errorf("write pages of %s: %w", k, err)
	}
	extents := unstored(ranges, None)
	return w.queue.Submit(queue.Job{Do: func() error { return w.emitRanges(k, Withdrawn, extents) }})
}

func unstored(ranges []Range, frame int) []Extent {
	extents := make([]Extent, len(ranges))
	for i, r := range ranges {
		extents[i] = Extent{Range: r, Frame: frame}
	}
	return extents
}

// WriteShared writes that ranges of the object k are the same pages, not only equal ones, as those of the
// object from at the same places moved by shift bytes, as they were last written.
func (w *Writer) WriteShared(k Key, ranges []Range, from Key, shift int64) error {
	if err := page.CheckAll(ranges, uint64(w.pageSize)); err != nil {
		return fmt.Errorf("write pages of %s: %w", k, err)
	}
	ranges = slices.Clone(ranges)
	return w.queue.Submit(queue.Job{Do: func() error {
		var zeros, shared []Extent
		for _, r := range ranges {
			source := Range{Start: r.Start + uint64(shift), End: r.End + uint64(shift)}
			at := source.Start
			for _, e := range page.Overlap(w.ledger.extents(from), source) {
				e = e.Cut(source, w.ledger.pageSize)
				if e.Start != at {
					break
				}
				at = e.End
				e.Range = Range{Start: e.Start - uint64(shift), End: e.End - uint64(shift)}
				if e.Frame == Zero {
					zeros = append(zeros, e)
				} else {
					shared = append(shared, e)
				}
			}
			if at != source.End {
				return fmt.Errorf("write pages of %s: those of %s at %#x: %w", k, from, at, ErrNotFound)
			}
		}
		if err := w.emitRanges(k, Zeros, zeros); err != nil {
			return err
		}
		return w.emitRanges(k, Shared, shared)
	}})
}

// writeFrame writes what fits into one frame.
func (w *Writer) writeFrame(k Key, ranges []Range, fill func([]byte, []Range) error) error {
	if err := w.queue.Err(); err != nil {
		return err
	}
	size := 0
	for _, r := range ranges {
		size += int(r.Len())
	}
	buf := <-w.free
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	release := func() { w.free <- buf }
	if err := fill(buf[:size], ranges); err != nil {
		release()
		return err
	}
	s := &prepared{Frame: Frame{Key: k, Kind: Pages}}
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		s.prepare(w, buf[:size], ranges)
	}()
	err := w.queue.Submit(queue.Job{Ready: ready, Do: func() error { return w.emitPages(s) }, After: release})
	if err != nil {
		<-ready
		release()
	}
	return err
}

// prepared is a frame that waits for its place in the file.
type prepared struct {
	Frame
	extents []Extent // of the stored pages; Frame is not yet set
	zeros   []Extent
	stored  []byte
}

// prepare drops the zero pages of buf, then compresses and hashes it.
func (s *prepared) prepare(w *Writer, buf []byte, ranges []Range) {
	size := w.pageSize
	zero := make([]byte, size)
	kept := 0
	at := 0
	for _, r := range ranges {
		for addr := r.Start; addr < r.End; addr += uint64(size) {
			content := buf[at : at+size]
			at += size
			one := Range{Start: addr, End: addr + uint64(size)}
			if bytes.Equal(content, zero) {
				s.zeros = page.Append(s.zeros, one)
				continue
			}
			s.extents = page.Append(s.extents, one)
			if kept != at-size {
				copy(buf[kept:], content)
			}
			kept += size
		}
	}
	s.Count = kept / size
	s.stored = buf[:kept]
	if w.encoder != nil {
		if z := w.encoder.Encode(s.stored); z != nil {
			s.stored, s.Codec = z, Zstd
		}
	}
	s.Size = len(s.stored)
	s.Sum = checksum(s.stored)
	s.Digest = sha256.Sum256(s.stored)
}

// emitPages writes a frame with its pages, and another one for those that are zero.
func (w *Writer) emitPages(s *prepared) error {
	if s.Count > 0 {
		f := &s.Frame
		f.Number, f.Offset = len(w.ledger.frames), w.off
		index := 0
		for i, e := range s.extents {
			s.extents[i].Frame, s.extents[i].Index = f.Number, index
			index += int(e.Len()) / w.pageSize
		}
		if err := w.emitFrame(f, s.extents); err != nil {
			return err
		}
		if f.Codec == Plain {
			if err := w.put(make([]byte, paddingAt(w.off, int64(w.pageSize)))); err != nil {
				return err
			}
		}
		f.Start = w.off
		if err := w.put(s.stored); err != nil {
			return err
		}
	}
	return w.emitRanges(s.Key, Zeros, s.zeros)
}

// emitRanges writes frames that store nothing.
func (w *Writer) emitRanges(k Key, kind FrameKind, extents []Extent) error {
	for len(extents) > 0 {
		n := min(len(extents), maxRanges)
		f := &Frame{Number: len(w.ledger.frames), Offset: w.off, Key: k, Kind: kind}
		if err := w.emitFrame(f, extents[:n]); err != nil {
			return err
		}
		extents = extents[n:]
	}
	return nil
}

func (w *Writer) emitFrame(f *Frame, extents []Extent) error {
	if err := w.ledger.frame(f, extents); err != nil {
		return fmt.Errorf("write %w", err)
	}
	return w.write(appendFrame(nil, f, extents))
}
