package dump

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// MaxFrame is the most that a frame holds of pages, in bytes.
const MaxFrame = 4 << 20

// maxRanges bounds the ranges of one frame.
const maxRanges = 16384

// FrameKind says what a frame tells about its ranges.
type FrameKind uint8

const (
	Pages     FrameKind = 1 // their pages, stored in the frame
	Zeros     FrameKind = 2 // that they are zero
	Shared    FrameKind = 3 // that their pages are some that an earlier frame stored
	Withdrawn FrameKind = 4 // that they are as if no frame had told about them
)

func (k FrameKind) String() string {
	switch k {
	case Pages:
		return "pages"
	case Zeros:
		return "zeros"
	case Shared:
		return "shared"
	case Withdrawn:
		return "withdrawn"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Codec is how pages are stored.
type Codec uint8

const (
	Plain Codec = 0 // as they are, aligned to the page size in the file
	Zstd  Codec = 1 // RFC 8878
)

func (c Codec) String() string {
	switch c {
	case Plain:
		return "none"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// Frame is a frame of pages, all of one object.
type Frame struct {
	Number int
	Offset int64 // of the frame's head in the file
	Key    Key   // the record that the pages belong to
	Kind   FrameKind
	Codec  Codec
	Count  int   // pages stored
	Start  int64 // offset of the stored bytes in the file
	Size   int   // number of stored bytes
	Sum    uint32
	Digest [sha256.Size]byte // over the stored bytes, as Sum (CRC-32C) is
}

func (f *Frame) String() string { return fmt.Sprintf("frame %d of %s", f.Number, f.Key) }

// check compares the CRC-32C of the stored bytes.
func (f *Frame) check(stored []byte) error { return f.compare(checksum(stored)) }

func (f *Frame) compare(sum uint32) error {
	if sum != f.Sum {
		return corrupt(f.Start, "%s: checksum mismatch", f)
	}
	return nil
}

// checkDigest compares their SHA-256.
func (f *Frame) checkDigest(stored []byte) error {
	if sha256.Sum256(stored) != f.Digest {
		return corrupt(f.Start, "%s: digest mismatch", f)
	}
	return nil
}

const (
	frameHeadSize = 64
	rangeSize     = 24
)

// appendFrame appends the unit that begins a frame, for ranges whose stored pages are described by f.
func appendFrame(b []byte, f *Frame, extents []Extent) []byte {
	start := len(b)
	b = append(b, make([]byte, unitHeadSize)...)
	b = append(b, byte(f.Kind), byte(f.Codec), 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Key.Type))
	b = binary.LittleEndian.AppendUint32(b, 0) // seal
	b = binary.LittleEndian.AppendUint32(b, 0) // pack
	b = binary.LittleEndian.AppendUint32(b, uint32(len(extents)))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Count))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Size))
	b = binary.LittleEndian.AppendUint32(b, f.Sum)
	b = append(b, f.Digest[:]...)
	for _, e := range extents {
		b = binary.LittleEndian.AppendUint64(b, e.Start)
		b = binary.LittleEndian.AppendUint64(b, e.End)
		var source uint64
		if f.Kind == Shared {
			source = uint64(e.Frame)<<32 | uint64(e.Index)
		}
		b = binary.LittleEndian.AppendUint64(b, source)
	}
	putUnitHead(b[start:], unitFrame, 0, f.Key.ID)
	return b
}

// parseFrame takes the payload of a frame's unit apart. The frame is the number-th; off is where its unit is.
// What a Shared frame refers to is not checked.
func parseFrame(h unitHead, b []byte, number int, off int64, pageSize uint64) (*Frame, []Extent, error) {
	f := &Frame{Number: number, Offset: off}
	f.Key.ID = h.id
	if len(b) < frameHeadSize {
		return nil, nil, corrupt(off, "frame %d: %d bytes are too short for a head", number, len(b))
	}
	f.Kind, f.Codec = FrameKind(b[0]), Codec(b[1])
	f.Key.Type = Type(binary.LittleEndian.Uint32(b[4:]))
	seal, pack := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	ranges := binary.LittleEndian.Uint32(b[16:])
	count, size := binary.LittleEndian.Uint32(b[20:]), binary.LittleEndian.Uint32(b[24:])
	f.Sum = binary.LittleEndian.Uint32(b[28:])
	copy(f.Digest[:], b[32:])
	switch {
	case h.flags != 0 || b[2]|b[3] != 0 || f.Kind < Pages || f.Kind > Withdrawn:
		return nil, nil, formatError(ErrUnsupported, off, "%s: %s with flags %#x is not supported", f, f.Kind, h.flags)
	case f.Codec != Plain && f.Codec != Zstd:
		return nil, nil, formatError(ErrUnsupported, off, "%s: %s is not supported", f, f.Codec)
	case seal != 0:
		return nil, nil, formatError(ErrUnsupported, off, "%s: sealed with key %d; sealed snapshots are not supported", f, seal)
	case pack != 0:
		return nil, nil, formatError(ErrUnsupported, off, "%s: stored in pack %d; snapshots with a parent are not supported", f, pack)
	case ranges == 0 || ranges > maxRanges || len(b) != frameHeadSize+int(ranges)*rangeSize:
		return nil, nil, corrupt(off, "%s: %d ranges in %d bytes", f, ranges, len(b)-frameHeadSize)
	case size > MaxFrame || uint64(count) > MaxFrame/pageSize:
		return nil, nil, corrupt(off, "%s: %d pages in %d bytes are more than a frame may hold", f, count, size)
	}
	f.Count, f.Size = int(count), int(size)
	extents, err := parseRanges(f, b[frameHeadSize:], pageSize)
	if err != nil {
		return nil, nil, corrupt(off, "%s: %v", f, err)
	}
	return f, extents, f.checkSize(pageSize)
}

func parseRanges(f *Frame, b []byte, pageSize uint64) ([]Extent, error) {
	extents := make([]Extent, 0, len(b)/rangeSize)
	var pages, last uint64
	for ; len(b) > 0; b = b[rangeSize:] {
		e := Extent{Range: Range{Start: binary.LittleEndian.Uint64(b), End: binary.LittleEndian.Uint64(b[8:])}, Frame: Zero}
		source := binary.LittleEndian.Uint64(b[16:])
		switch {
		case f.Kind == Shared:
			e.Frame, e.Index = int(source>>32), int(source&0xffffffff)
		case source != 0:
			return nil, fmt.Errorf("range %v has a source", e.Range)
		case f.Kind == Pages:
			e.Frame, e.Index = f.Number, int(pages)
		case f.Kind == Withdrawn:
			e.Frame = None
		}
		if err := e.Check(pageSize); err != nil {
			return nil, err
		}
		if e.Start < last {
			return nil, fmt.Errorf("range %v is out of order", e.Range)
		}
		last = e.End
		if pages += e.Len() / pageSize; f.Kind == Pages && pages > uint64(f.Count) {
			return nil, fmt.Errorf("its ranges have more than %d pages", f.Count)
		}
		extents = append(extents, e)
	}
	if f.Kind == Pages && pages != uint64(f.Count) {
		return nil, fmt.Errorf("its ranges have %d pages, not %d", pages, f.Count)
	}
	return extents, nil
}

// checkSize tells whether the stored bytes are as many as the frame's kind and codec allow.
func (f *Frame) checkSize(pageSize uint64) error {
	raw := f.Count * int(pageSize)
	switch {
	case f.Kind != Pages && (f.Count != 0 || f.Size != 0 || f.Codec != Plain || f.Sum != 0 || f.Digest != [sha256.Size]byte{}):
		return corrupt(f.Offset, "%s: stores pages that its kind does not have", f)
	case f.Kind == Pages && f.Codec == Plain && f.Size != raw, f.Kind == Pages && f.Codec != Plain && (f.Size == 0 || f.Size >= raw):
		return corrupt(f.Offset, "%s: %d bytes cannot be %d pages", f, f.Size, f.Count)
	}
	return nil
}
