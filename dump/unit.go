package dump

import (
	"encoding/binary"
	"hash/crc32"
)

// A unit is what a snapshot is made of after its header: a head of 24 bytes and a payload.
// The types below are the framing's own; all smaller ones are those of records.
const (
	unitHeadSize = 24
	unitFrame    = 0xffffff01
	unitEnd      = 0xffffffff
	maxRecord    = 0x7fffffff // highest type of a record

	flagTombstone = 1
)

// MaxPayload is the most that a record may hold, in bytes.
const MaxPayload = 16 << 20

type unitHead struct {
	kind   uint32
	flags  uint32
	id     uint64
	length uint32 // of the payload
	sum    uint32 // CRC-32C of the head before it and the payload
}

func (h unitHead) key() Key { return Key{Type(h.kind), h.id} }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(parts ...[]byte) uint32 {
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum
}

// putUnitHead writes the head of the unit that b is to its begin; its payload is in place.
func putUnitHead(b []byte, kind, flags uint32, id uint64) {
	binary.LittleEndian.PutUint32(b, kind)
	binary.LittleEndian.PutUint32(b[4:], flags)
	binary.LittleEndian.PutUint64(b[8:], id)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(b)-unitHeadSize))
	binary.LittleEndian.PutUint32(b[20:], checksum(b[:20], b[unitHeadSize:]))
}

// readUnit reads a head and its payload, into buf if that is large enough.
func readUnit(s *scanner, buf []byte) (unitHead, []byte, error) {
	var b [unitHeadSize]byte
	at := s.off
	if err := s.read(b[:], "unit"); err != nil {
		return unitHead{}, buf, err
	}
	h := unitHead{
		kind:   binary.LittleEndian.Uint32(b[:]),
		flags:  binary.LittleEndian.Uint32(b[4:]),
		id:     binary.LittleEndian.Uint64(b[8:]),
		length: binary.LittleEndian.Uint32(b[16:]),
		sum:    binary.LittleEndian.Uint32(b[20:]),
	}
	if h.length > MaxPayload {
		return h, buf, corrupt(at+16, "%s: %d bytes are more than %d", h, h.length, MaxPayload)
	}
	buf, err := s.take(buf, int(h.length), h)
	if err != nil {
		return h, buf, err
	}
	if checksum(b[:20], buf) != h.sum {
		return h, buf, corrupt(at, "%s: checksum mismatch", h)
	}
	if h.kind > maxRecord && h.kind != unitFrame && h.kind != unitEnd {
		return h, buf, formatError(ErrUnsupported, at, "unit of type %#x is not supported", h.kind)
	}
	return h, buf, nil
}

// String gives what the unit is, for messages.
func (h unitHead) String() string {
	switch {
	case h.kind == unitFrame:
		return "frame"
	case h.kind == unitEnd:
		return "trailer"
	case h.flags&flagTombstone != 0:
		return "tombstone " + h.key().String()
	}
	return "record " + h.key().String()
}
