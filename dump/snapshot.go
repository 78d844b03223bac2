package dump

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"vps/dump/internal/codec"
)

// Snapshot is a whole snapshot, open for access in any order. Its methods may be called from several goroutines.
type Snapshot struct {
	r       io.ReaderAt
	size    int64
	header  *Header
	version Version
	ledger  *ledger
	decoder codec.Decoder

	mu    sync.Mutex // guards cache, and the ledger's logs while they are resolved
	cache frameBuffer
}

// Open opens a snapshot of size bytes. It checks everything but the content of pages, which is checked when it
// is read, or by [Verify]. The snapshot reads from r until it is no longer used.
func Open(r io.ReaderAt, size int64) (*Snapshot, error) {
	s := newFileScanner(r, size)
	walk, err := newReader(s)
	if err != nil {
		return nil, err
	}
	if err := checkEnd(r, s.off, size); err != nil {
		return nil, err
	}
	if err := walk.drain(func(Unit) error { return nil }); err != nil {
		return nil, err
	}
	if s.off != size {
		return nil, corrupt(s.off, "%d bytes follow the end of the snapshot", size-s.off)
	}
	return &Snapshot{r: r, size: size, header: walk.header, version: walk.version, ledger: walk.ledger}, nil
}

// checkEnd tells early whether the end is missing.
func checkEnd(r io.ReaderAt, header, size int64) error {
	var b [len(endMagic)]byte
	if size < header+footerSize {
		return formatError(ErrTruncated, size, "the snapshot has no trailer")
	}
	if _, err := r.ReadAt(b[:], size-int64(len(b))); err != nil {
		return fmt.Errorf("read snapshot at offset %d: %w", size-int64(len(b)), err)
	}
	if string(b[:]) != endMagic {
		return formatError(ErrTruncated, size, "no end mark: the snapshot is truncated or was never finished")
	}
	return nil
}

// Header returns the header.
func (s *Snapshot) Header() *Header { return s.header }

// Version returns the version of the format.
func (s *Snapshot) Version() Version { return s.version }

// Size returns the length in bytes.
func (s *Snapshot) Size() int64 { return s.size }

// Keys returns the keys of the records, by type and id.
func (s *Snapshot) Keys() []Key { return s.ledger.keys() }

// IDs returns the ids of the records of a type, ascending.
func (s *Snapshot) IDs(t Type) []uint64 {
	var ids []uint64
	for k := range s.ledger.records {
		if k.Type == t {
			ids = append(ids, k.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Has tells whether there is such a record.
func (s *Snapshot) Has(k Key) bool {
	_, ok := s.ledger.records[k]
	return ok
}

// Record reads a record; ErrNotFound if there is none.
func (s *Snapshot) Record(k Key) (*Record, error) {
	at, ok := s.ledger.records[k]
	if !ok {
		return nil, fmt.Errorf("record %s: %w", k, ErrNotFound)
	}
	scan := newScanner(io.NewSectionReader(s.r, at.off, int64(at.size)), unitHeadSize)
	scan.off = at.off
	h, payload, err := readUnit(scan, nil)
	if err != nil {
		return nil, err
	}
	if h.key() != k || h.flags != 0 {
		return nil, corrupt(at.off, "record %s has become %s", k, h)
	}
	return &Record{Key: k, Offset: at.off, version: s.version, payload: payload}, nil
}

// Get reads the message of the record with this id whose type M is; ErrNotFound if there is none.
func Get[M proto.Message](s *Snapshot, id uint64) (M, error) {
	var m M
	rec, err := s.Record(Key{TypeOf(m), id})
	if err != nil {
		return m, err
	}
	decoded, err := rec.Message()
	if err != nil {
		return m, err
	}
	return decoded.(M), nil
}

// All yields the messages of type M by ascending id, up to and including the first error.
func All[M proto.Message](s *Snapshot) iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		var m M
		for _, id := range s.IDs(TypeOf(m)) {
			m, err := Get[M](s, id)
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Unsupported names everything in the snapshot that a newer minor version of the format put there and that
// cannot be read, each by an error of class ErrUnsupported.
func (s *Snapshot) Unsupported() ([]error, error) {
	var found []error
	for _, k := range s.Keys() {
		rec, err := s.Record(k)
		if err != nil {
			return nil, err
		}
		if err := rec.Unsupported(); isUnsupported(err) {
			found = append(found, err)
		} else if err != nil {
			return nil, err
		}
	}
	return found, nil
}
