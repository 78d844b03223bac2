package dump

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"google.golang.org/protobuf/proto"

	"vps/dump/internal/codec"
	"vps/dump/internal/message"
	"vps/dump/internal/queue"
)

// buffers is the number of frames on their way: one is filled, one hashed, one written.
const buffers = 3

// Writer writes a snapshot. What it is given goes through a pipeline: frames are compressed and hashed
// while earlier ones are written, in the order of the calls. Pages wait for room in it; a record never waits. Its methods
// may be called from several goroutines. The first failure to write is final: every later call returns it.
//
// Exactly one of Close and Abort ends a Writer.
type Writer struct {
	out      *bufio.Writer
	off      int64
	sum      hash.Hash
	ledger   *ledger
	pageSize int
	codec    Codec
	encoder  *codec.Encoder
	free     chan []byte  // buffers for frames
	queue    *queue.Queue // what is to be written, in the order of the file
}

// NewWriter begins a snapshot on w with the header, whose page size counts. Pages are stored by the codec.
func NewWriter(w io.Writer, h *Header, codec Codec) (*Writer, error) {
	return newWriter(w, h, Version{Major, Minor}, codec)
}

func newWriter(w io.Writer, h *Header, v Version, c Codec) (*Writer, error) {
	b, err := appendHeader(nil, h, v)
	if err != nil {
		return nil, err
	}
	writer := &Writer{
		out:      bufio.NewWriterSize(w, chunk),
		sum:      sha256.New(),
		ledger:   newLedger(h),
		pageSize: int(h.PageSize),
		codec:    c,
		free:     make(chan []byte, buffers),
	}
	switch c {
	case Plain:
	case Zstd:
		if writer.encoder, err = codec.NewEncoder(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("write snapshot: %s: %w", c, ErrUnsupported)
	}
	for range buffers {
		writer.free <- nil
	}
	writer.queue = queue.New(ErrClosed)
	return writer, writer.queue.Submit(queue.Job{Do: func() error { return writer.write(b) }})
}

// write puts out bytes that the digest covers.
func (w *Writer) write(b []byte) error {
	w.sum.Write(b)
	return w.put(b)
}

// put puts out bytes that it does not cover.
func (w *Writer) put(b []byte) error {
	if len(b) >= chunk {
		if err := w.flush(); err != nil {
			return err
		}
	}
	n, err := w.out.Write(b)
	w.off += int64(n)
	if err != nil {
		return fmt.Errorf("write snapshot at offset %d: %w", w.off, err)
	}
	return nil
}

func (w *Writer) flush() error {
	if err := w.out.Flush(); err != nil {
		return fmt.Errorf("write snapshot at offset %d: %w", w.off, err)
	}
	return nil
}

// Put writes a record, replacing an earlier one of the same type and id. The message is read before Put returns.
func (w *Writer) Put(id uint64, m proto.Message) error {
	k := Key{TypeOf(m), id}
	if k.Type == Type_TYPE_UNSPECIFIED || id == 0 {
		return fmt.Errorf("write record %d of %T: not a record: %w", id, m, ErrUnsupported)
	}
	b, err := message.Marshal(make([]byte, unitHeadSize, 256), m)
	if err != nil {
		return fmt.Errorf("write record %s: %w", k, err)
	}
	if n := len(b) - unitHeadSize; n > MaxPayload {
		return fmt.Errorf("write record %s: %d bytes are more than %d: %w", k, n, MaxPayload, ErrLimit)
	}
	putUnitHead(b, uint32(k.Type), 0, id)
	return w.queue.Submit(queue.Job{Do: func() error {
		w.ledger.record(k, span{w.off, len(b)})
		return w.write(b)
	}})
}

// Delete withdraws a record and its pages, if it was written.
func (w *Writer) Delete(k Key) error {
	if k.Type == Type_TYPE_UNSPECIFIED || k.ID == 0 {
		return fmt.Errorf("withdraw record %s: not a record: %w", k, ErrUnsupported)
	}
	b := make([]byte, unitHeadSize)
	putUnitHead(b, uint32(k.Type), flagTombstone, k.ID)
	return w.queue.Submit(queue.Job{Do: func() error {
		w.ledger.tombstone(k)
		return w.write(b)
	}})
}

// Flush returns when everything has been handed to the underlying writer.
func (w *Writer) Flush() error {
	done := make(chan struct{})
	if err := w.queue.Submit(queue.Job{Do: w.flush, After: func() { close(done) }}); err != nil {
		return err
	}
	<-done
	return w.queue.Err()
}

// Close writes the trailer. The snapshot is whole if it returns nil. It does not close the underlying writer.
func (w *Writer) Close() error {
	return w.queue.End(queue.Job{Do: func() error {
		if err := w.put(w.ledger.appendTrailer(nil, w.off, w.sum)); err != nil {
			return err
		}
		return w.flush()
	}})
}

// Records returns how many records the snapshot has, once Close has ended it.
func (w *Writer) Records() int { return len(w.ledger.records) }

// Abort ends the Writer without a trailer, so that no reader takes for whole what was written. After
// Close or Abort it does nothing. It waits for a write that is under way.
func (w *Writer) Abort() {
	w.queue.Fail(errAborted)
	// The end of a Writer that has ended already is not a failure of Abort.
	_ = w.queue.End(queue.Job{Do: func() error { return nil }})
}

var errAborted = errors.New("snapshot was abandoned")
