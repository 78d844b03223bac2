package dump

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"vps/dump/internal/message"
)

// FuzzOpen expects errors, or a snapshot of which everything can be read.
func FuzzOpen(f *testing.F) {
	seed(f)
	f.Fuzz(checkOpen)
}

func checkOpen(t *testing.T, file []byte) {
	s, err := Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		wantFormatError(t, "open", err)
		return
	}
	whole := s.Verify(t.Context())
	for _, k := range s.Keys() {
		for _, err := range s.Pages(k) {
			if err != nil && whole == nil {
				t.Errorf("verified, yet pages of %s: %v", k, err)
			}
		}
	}
}

// FuzzStream expects that what can be read as it arrives can be opened too.
func FuzzStream(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(bytes.NewReader(file))
		if err == nil {
			err = r.drain(func(u Unit) error {
				if rec, ok := u.(*Record); ok && !rec.Deleted {
					// The stream goes on without a message that cannot be decoded; Verify refuses it.
					_, _ = rec.Message()
				}
				return nil
			})
		}
		if err != nil {
			wantFormatError(t, "stream", err)
			return
		}
		if _, err := Open(bytes.NewReader(file[:r.s.off]), r.s.off); err != nil {
			t.Errorf("the stream was whole, yet: %v", err)
		}
	})
}

// FuzzDecode gives payloads to every message: no checksum stands before them here.
func FuzzDecode(f *testing.F) {
	for _, rec := range [][]byte{forgeRecord(1, &Mm{Id: 1, Mappings: []*Mapping{{Start: 1, File: &FileRef{Path: "/"}}}})} {
		f.Add(uint32(Type_TYPE_MM), rec[unitHeadSize:])
	}
	f.Fuzz(func(t *testing.T, kind uint32, payload []byte) {
		k := Key{Type(kind), 1}
		m, err := decode(k, payload, 0, Version{1, 0})
		if err != nil {
			wantFormatError(t, "decode", err)
			return
		}
		message.Unknown(m.ProtoReflect())
	})
}

// FuzzForged makes snapshots with correct checksums, digests and trailer from what the fuzzer gives, and
// expects that those which can be opened can be verified, or else cannot be read.
func FuzzForged(f *testing.F) {
	f.Add([]byte{0, 12, 0, 1, 0, 1, 1, 1, 0, 1, 1, 3, 1, 0, 0, 1, 3, 1, 1, 0, 1, 9, 1, 0, 0})
	f.Add([]byte{0, 12, 0, 1, 0, 1, 1, 2, 0, 0, 1, 3, 1, 0, 0, 0, 12, 1, 1, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		file := forgeScript(t, script)
		if file == nil {
			return
		}
		checkOpen(t, file)
		s := open(t, file) // the units were read, and the trailer is right
		if _, streamed := readAll(file); streamed == nil {
			if err := s.Verify(t.Context()); err != nil {
				t.Error("the stream was whole, yet:", err)
			}
		}
	})
}

// forgeScript makes a file from a script: records are 0, type, flags, id, length, payload; frames are 1, id, kind,
// codec, pages, ranges (each start, pages, frame, index), the byte that fills the pages. Nil if no reader would come to the end.
func forgeScript(t *testing.T, script []byte) []byte {
	next := func() (c byte) {
		if len(script) > 0 {
			c, script = script[0], script[1:]
		}
		return c
	}
	file, err := appendHeader(nil, testHeader(), Version{1, 0})
	must(t, err)
	for len(script) > 0 {
		if next()%2 == 0 {
			kind, flags, id, n := uint32(next()), uint32(next()), uint64(next()), int(next())
			n = min(n, len(script))
			file = append(file, forgeUnit(kind, flags, id, script[:n])...)
			script = script[n:]
			continue
		}
		f := Frame{Key: mm(uint64(next())), Kind: FrameKind(next()), Codec: Codec(next()), Count: int(next() % 8)}
		extents := make([]Extent, next()%8)
		for i := range extents {
			start, n := uint64(next()), uint64(next())
			extents[i] = Extent{Range: pages(start, n), Frame: int(next()), Index: int(next())}
		}
		stored := bytes.Repeat([]byte{next()}, f.Count*pageSize)
		if f.Codec == Zstd {
			stored = squeeze(stored)
		}
		if f.Kind == Pages {
			f.Size, f.Sum, f.Digest = len(stored), checksum(stored), sha256.Sum256(stored)
		} else {
			stored, f.Count = nil, 0
		}
		file = appendFrame(file, &f, extents)
		if f.Kind == Pages && f.Codec == Plain {
			file = append(file, make([]byte, paddingAt(int64(len(file)), pageSize))...)
		}
		file = append(file, stored...)
	}
	r, err := newReader(newFileScanner(bytes.NewReader(file), int64(len(file))))
	must(t, err)
	for r.s.off < int64(len(file)) {
		if _, err := r.Next(); err != nil {
			wantFormatError(t, "read", err)
			return nil
		}
	}
	return r.ledger.appendTrailer(file, int64(len(file)), r.s.sum)
}

// seed adds small snapshots, whole and broken. Checksums stop most of what the fuzzer makes of them; for what lies
// behind, there are FuzzForged and FuzzDecode.
func seed(f *testing.F) {
	for _, codec := range []Codec{Plain, Zstd} {
		file := sample(f, codec)
		f.Add(file)
		f.Add(file[:len(file)/2])
	}
	f.Add(forge(forgeRecord(1, &Mm{Id: 1}), forgeUnit(unitFrame, 0, 1, make([]byte, frameHeadSize))))
	f.Add(forge(forgeUnit(unitEnd, 0, 0, make([]byte, endPayload))))
}
