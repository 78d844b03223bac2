package dump

import (
	"context"
	"errors"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"
)

func isUnsupported(err error) bool { return errors.Is(err, ErrUnsupported) }

// Verify checks every byte of a snapshot of size bytes, on all processors. What it cannot read because
// a newer minor version wrote it is whole all the same.
func Verify(ctx context.Context, r io.ReaderAt, size int64) error {
	s, err := Open(r, size)
	if err != nil {
		return err
	}
	return s.Verify(ctx)
}

// Verify checks what Open did not: the content of frames, and of records.
func (s *Snapshot) Verify(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan int)
	g.Go(func() error {
		defer close(work)
		for i := range s.ledger.frames {
			select {
			case work <- i:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			var buf frameBuffer
			for i := range work {
				if _, err := s.readFrame(&buf, i); err != nil {
					return err
				}
				f := s.ledger.frames[i]
				if f.Kind != Pages {
					continue
				}
				if err := f.checkDigest(buf.stored); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error { return s.verifyRecords(ctx) })
	return g.Wait()
}

func (s *Snapshot) verifyRecords(ctx context.Context) error {
	for _, k := range s.Keys() {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := s.Record(k)
		if err != nil {
			return err
		}
		if _, err := rec.Message(); err != nil && !isUnsupported(err) {
			return err
		}
	}
	return nil
}
