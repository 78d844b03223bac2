package dump

import (
	"fmt"
	"hash/crc32"
)

// streamPiece is how many bytes of a frame Stream reads at a time: so few that they stay in a processor's cache.
const streamPiece = 256 << 10

// FrameReader reads frames of a snapshot. It serves one goroutine; its buffer is used again for each frame.
type FrameReader struct {
	s     *Snapshot
	whole frameBuffer
	piece []byte
}

// NewFrameReader returns a reader of the snapshot's frames, which are numbered as in [Snapshot.Frames].
func (s *Snapshot) NewFrameReader() *FrameReader { return &FrameReader{s: s} }

// Read returns the pages that a frame stores, one after the other, when they are checked. They are valid until the next call.
func (r *FrameReader) Read(number int) ([]byte, error) {
	if _, err := r.frame(number); err != nil {
		return nil, err
	}
	return r.s.readFrame(&r.whole, number)
}

// Stream calls use for the pages that a frame stores, in order, as many as have been read; index is that of the first one.
// They are not checked before Stream returns: only if it returns nil were they what the snapshot holds.
func (r *FrameReader) Stream(number int, use func(index int, pages []byte) error) error {
	f, err := r.frame(number)
	if err != nil {
		return err
	}
	if f.Codec != Plain {
		pages, err := r.s.readFrame(&r.whole, number)
		if err != nil {
			return err
		}
		return use(0, pages)
	}
	if r.piece == nil {
		r.piece = make([]byte, streamPiece)
	}
	var sum uint32
	for at := 0; at < f.Size; {
		part := r.piece[:min(len(r.piece), f.Size-at)]
		if _, err := r.s.r.ReadAt(part, f.Start+int64(at)); err != nil {
			return fmt.Errorf("read snapshot at offset %d: %w", f.Start+int64(at), err)
		}
		sum = crc32.Update(sum, castagnoli, part)
		if err := use(at/int(r.s.ledger.pageSize), part); err != nil {
			return err
		}
		at += len(part)
	}
	return f.compare(sum)
}

func (r *FrameReader) frame(number int) (*Frame, error) {
	if number < 0 || number >= len(r.s.ledger.frames) {
		return nil, fmt.Errorf("frame %d: %w", number, ErrNotFound)
	}
	return r.s.ledger.frames[number], nil
}
