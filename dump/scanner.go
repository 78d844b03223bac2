package dump

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
)

// chunk is how much is allocated ahead of what has been read.
const chunk = 64 << 10

// scanner reads a snapshot in order and hashes what the trailer's digest covers.
type scanner struct {
	r    *bufio.Reader
	file *io.SectionReader // what r reads, if it can seek
	off  int64
	sum  hash.Hash
}

// newScanner reads r through a buffer of that size.
func newScanner(r io.Reader, buffer int) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, buffer), sum: sha256.New()}
}

func newFileScanner(r io.ReaderAt, size int64) *scanner {
	file := io.NewSectionReader(r, 0, size)
	const buffer = 8 << 10 // what is read behind the head of a frame is passed over
	s := newScanner(file, int(min(size, buffer)))
	s.file = file
	return s
}

// fill reads exactly len(b) bytes and hashes nothing.
func (s *scanner) fill(b []byte, what any) error {
	n, err := io.ReadFull(s.r, b)
	s.off += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return formatError(ErrTruncated, s.off, "the snapshot ends within its %v", what)
	}
	if err != nil {
		return fmt.Errorf("read snapshot at offset %d: %w", s.off, err)
	}
	return nil
}

// read is fill, hashed.
func (s *scanner) read(b []byte, what any) error {
	err := s.fill(b, what)
	s.sum.Write(b)
	return err
}

// take reads n bytes into buf, hashed.
func (s *scanner) take(buf []byte, n int, what any) ([]byte, error) {
	buf, err := s.load(buf, n, what)
	s.sum.Write(buf)
	return buf, err
}

// load reads n bytes into buf, which grows as they arrive.
func (s *scanner) load(buf []byte, n int, what any) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < n {
		step := min(n-len(buf), max(len(buf), chunk, cap(buf)-len(buf)))
		end := len(buf) + step
		buf = slices.Grow(buf, step)[:end]
		if err := s.fill(buf[end-step:], what); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// padding reads zeros up to a multiple of align.
func (s *scanner) padding(align int64, what any) error {
	at := s.off
	pad := make([]byte, paddingAt(at, align))
	if err := s.fill(pad, what); err != nil {
		return err
	}
	if i := slices.IndexFunc(pad, func(c byte) bool { return c != 0 }); i >= 0 {
		return corrupt(at+int64(i), "%v: padding is not zero", what)
	}
	return nil
}

// skip passes over n bytes of a file.
func (s *scanner) skip(n int64, what any) error {
	if s.off+n > s.file.Size() {
		return formatError(ErrTruncated, s.file.Size(), "the snapshot ends within its %v", what)
	}
	s.off += n
	if n <= int64(s.r.Buffered()) {
		_, err := s.r.Discard(int(n))
		return err
	}
	_, err := s.file.Seek(s.off, io.SeekStart)
	s.r.Reset(s.file)
	return err
}

func paddingAt(off, align int64) int64 { return -off & (align - 1) }
