package dump

import (
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"vps/dump/internal/codec"
	"vps/dump/internal/message"
)

// Record is a record as it stands in a snapshot.
type Record struct {
	Key
	Offset  int64 // of its unit
	Deleted bool  // a tombstone: the record and its pages are withdrawn
	version Version
	payload []byte
}

// Message decodes the record. Records that only a newer minor version has give ErrUnsupported.
func (r *Record) Message() (proto.Message, error) {
	return decode(r.Key, r.payload, r.Offset, r.version)
}

// Payload returns the message as it is stored. The caller must not change it.
func (r *Record) Payload() []byte { return r.payload }

// Unsupported names what a newer minor version of the format put into the record: its type or a field. Nil if nothing.
func (r *Record) Unsupported() error {
	if r.Deleted {
		return nil
	}
	m, err := r.Message()
	if err != nil {
		return err
	}
	if path, found := message.Unknown(m.ProtoReflect()); found {
		return formatError(ErrUnsupported, r.Offset, "record %s: cannot read %s (written by format %s)", r.Key, path, r.version)
	}
	return nil
}

// PageFrame is a frame of pages as it stands in a snapshot.
type PageFrame struct {
	*Frame
	Extents []Extent // ascending: those stored here, zero, or stored by an earlier frame
	Data    []byte   // the pages of this frame, those of its extents one after the other
}

// Unit is a *Record or a *PageFrame.
type Unit interface{ unit() }

func (*Record) unit()    {}
func (*PageFrame) unit() {}

// Reader reads a snapshot as it arrives. Nothing of it is to be made runnable, announced or
// named before Next has returned io.EOF: only then is the snapshot known to be whole.
type Reader struct {
	s       *scanner
	header  *Header
	version Version
	ledger  *ledger
	decoder codec.Decoder
	buf     []byte // payloads
	stored  []byte // a frame
	pages   []byte // the same, decompressed
	light   bool   // leave out digests and decompression
	end     error  // what Next returned last, if it was an error
}

// NewReader reads the header of a snapshot. The Reader may read some bytes beyond the snapshot's end.
func NewReader(r io.Reader) (*Reader, error) { return newReader(newScanner(r, chunk)) }

func newReader(s *scanner) (*Reader, error) {
	h, v, err := readHeader(s)
	if err != nil {
		return nil, err
	}
	return &Reader{s: s, header: h, version: v, ledger: newLedger(h)}, nil
}

// Header returns the header.
func (r *Reader) Header() *Header { return r.header }

// Version returns the version of the format.
func (r *Reader) Version() Version { return r.version }

// Next returns the next unit, which is valid until the next call, or io.EOF after a verified trailer.
func (r *Reader) Next() (Unit, error) {
	if r.end != nil {
		return nil, r.end
	}
	u, err := r.next()
	if err != nil {
		r.end = err
		return nil, err
	}
	return u, nil
}

func (r *Reader) next() (Unit, error) {
	at := r.s.off
	h, payload, err := readUnit(r.s, r.buf)
	if err != nil {
		return nil, err
	}
	r.buf = payload
	switch h.kind {
	case unitEnd:
		if err := r.ledger.checkTrailer(r.s, h, payload, at); err != nil {
			return nil, err
		}
		return nil, io.EOF
	case unitFrame:
		return r.frame(h, payload, at)
	}
	return r.record(h, payload, at)
}

func (r *Reader) record(h unitHead, payload []byte, at int64) (*Record, error) {
	rec := &Record{Key: h.key(), Offset: at, Deleted: h.flags&flagTombstone != 0, version: r.version, payload: payload}
	switch {
	case h.flags&^flagTombstone != 0:
		return nil, formatError(ErrUnsupported, at, "%s: flags %#x are not supported", h, h.flags)
	case h.kind == 0 || h.id == 0:
		return nil, corrupt(at, "%s: type and id must not be 0", h)
	case rec.Deleted && len(payload) > 0:
		return nil, corrupt(at, "%s: has a payload", h)
	case rec.Deleted:
		r.ledger.tombstone(rec.Key)
	default:
		r.ledger.record(rec.Key, span{at, unitHeadSize + len(payload)})
	}
	return rec, nil
}

func (r *Reader) frame(h unitHead, payload []byte, at int64) (*PageFrame, error) {
	pageSize := r.ledger.pageSize
	f, extents, err := parseFrame(h, payload, len(r.ledger.frames), at, pageSize)
	if err != nil {
		return nil, err
	}
	if err := r.ledger.frame(f, extents); err != nil {
		return nil, corrupt(at, "%v", err)
	}
	if f.Codec == Plain && f.Kind == Pages {
		if err := r.s.padding(int64(pageSize), f); err != nil {
			return nil, err
		}
	}
	f.Start = r.s.off
	u := &PageFrame{Frame: f, Extents: extents}
	if r.s.file != nil {
		return u, r.s.skip(int64(f.Size), f)
	}
	r.stored, err = r.s.load(r.stored, f.Size, f)
	if err != nil {
		return nil, err
	}
	if err := f.check(r.stored); err != nil || r.light || f.Kind != Pages {
		return u, err
	}
	if err := f.checkDigest(r.stored); err != nil {
		return nil, err
	}
	u.Data, err = unpack(&r.decoder, f, r.stored, &r.pages, pageSize)
	return u, err
}

// unpack returns the pages of a frame: stored itself if they are plain, else *buf.
func unpack(d *codec.Decoder, f *Frame, stored []byte, buf *[]byte, pageSize uint64) ([]byte, error) {
	if f.Codec == Plain {
		return stored, nil
	}
	pages, err := d.Decode(stored, buf, MaxFrame)
	if err != nil {
		return nil, corrupt(f.Start, "%s: %v", f, err)
	}
	if want := f.Count * int(pageSize); len(pages) != want {
		return nil, corrupt(f.Start, "%s: decompressed to %d bytes, not %d", f, len(pages), want)
	}
	return pages, nil
}

// drain reads to the end.
func (r *Reader) drain(each func(Unit) error) error {
	for {
		u, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(u); err != nil {
			return err
		}
	}
}
