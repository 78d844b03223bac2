package dump

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"iter"
)

// The trailer: a unit that counts the tables' entries, the table of records, the table of frames, the footer.
const (
	endPayload  = 16
	recordEntry = 24
	frameEntry  = 48
	footerSize  = 56
	endMagic    = "SPV\x89"
)

// tables yields the entries of both tables.
func (l *ledger) tables() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var b []byte
		for _, k := range l.keys() {
			b = binary.LittleEndian.AppendUint32(b[:0], uint32(k.Type))
			b = binary.LittleEndian.AppendUint32(b, 0)
			b = binary.LittleEndian.AppendUint64(b, k.ID)
			b = binary.LittleEndian.AppendUint64(b, uint64(l.records[k].off))
			if !yield(b) {
				return
			}
		}
		for _, f := range l.frames {
			b = binary.LittleEndian.AppendUint64(b[:0], uint64(f.Offset))
			b = binary.LittleEndian.AppendUint32(b, uint32(f.Size))
			b = binary.LittleEndian.AppendUint32(b, f.Sum)
			b = append(b, f.Digest[:]...)
			if !yield(b) {
				return
			}
		}
	}
}

// appendTrailer appends the trailer, which begins at off. The sum is over what comes before it.
func (l *ledger) appendTrailer(b []byte, off int64, sum hash.Hash) []byte {
	start := len(b)
	b = append(b, make([]byte, unitHeadSize)...)
	b = l.appendCounts(b)
	putUnitHead(b[start:], unitEnd, 0, 0)
	for entry := range l.tables() {
		b = append(b, entry...)
	}
	footer := len(b)
	b = binary.LittleEndian.AppendUint64(b, uint64(off))
	b = binary.LittleEndian.AppendUint64(b, uint64(off)+uint64(len(b)-8-start)+footerSize)
	sum.Write(b[start:])
	b = sum.Sum(b)
	b = binary.LittleEndian.AppendUint32(b, checksum(b[footer:]))
	return append(b, endMagic...)
}

func (l *ledger) appendCounts(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(l.records)))
	return binary.LittleEndian.AppendUint64(b, uint64(len(l.frames)))
}

// checkTrailer compares a trailer with what came before it. Its unit, at off, has been read.
func (l *ledger) checkTrailer(s *scanner, h unitHead, payload []byte, off int64) error {
	if h.flags != 0 || h.id != 0 || !bytes.Equal(payload, l.appendCounts(nil)) {
		return corrupt(off, "trailer does not count %d records and %d frames", len(l.records), len(l.frames))
	}
	var b [footerSize]byte
	for want := range l.tables() {
		got := b[:len(want)]
		if err := s.read(got, "trailer"); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return corrupt(s.off-int64(len(want)), "trailer: the entry contradicts what it stands for")
		}
	}
	if err := s.read(b[:16], "footer"); err != nil {
		return err
	}
	footer := s.off - 16
	if err := s.fill(b[16:], "footer"); err != nil {
		return err
	}
	sum := s.sum.Sum(nil)
	switch {
	case string(b[52:]) != endMagic:
		return corrupt(s.off-4, "footer: no end mark")
	case checksum(b[:48]) != binary.LittleEndian.Uint32(b[48:]):
		return corrupt(footer, "footer: checksum mismatch")
	case binary.LittleEndian.Uint64(b[:]) != uint64(off):
		return corrupt(footer, "footer: the trailer is not at %d", binary.LittleEndian.Uint64(b[:]))
	case binary.LittleEndian.Uint64(b[8:]) != uint64(s.off):
		return corrupt(footer+8, "footer: the length is not %d", binary.LittleEndian.Uint64(b[8:]))
	case !bytes.Equal(sum, b[16:16+sha256.Size]):
		return corrupt(footer+16, "footer: digest mismatch")
	}
	return nil
}
