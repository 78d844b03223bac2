// Package convert writes snapshots anew: compressed or not, flattened, changed.
package convert

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"vps/dump"
)

// Options say in what the copy is to differ. What was replaced or withdrawn is in no copy; pages that were the same page
// are the same one in the copy too.
type Options struct {
	Codec        dump.Codec
	WithoutPages bool // leave out all pages: the copy can be shown, but not restored

	// Edit is given the header and then each record, and may change what it likes but the id. Nil changes nothing.
	Edit func(m proto.Message) error

	// Progress is told, now and then, how many bytes of pages have been copied. It may be nil.
	Progress func(done, total uint64)
}

// Snapshot checks every byte of s and writes a copy to w. A snapshot with anything that only a newer minor version of the
// format knows is refused, with [dump.ErrUnsupported]. If Snapshot fails, what it has written is no snapshot.
func Snapshot(ctx context.Context, w io.Writer, s *dump.Snapshot, o Options) error {
	if err := s.Verify(ctx); err != nil {
		return err
	}
	if bad, err := s.Unsupported(); err != nil {
		return err
	} else if len(bad) > 0 {
		return bad[0]
	}
	if o.Edit == nil {
		o.Edit = func(proto.Message) error { return nil }
	}
	header := proto.CloneOf(s.Header())
	header.WithoutPages = header.WithoutPages || o.WithoutPages
	if err := o.Edit(header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	out, err := dump.NewWriter(w, header, o.Codec)
	if err != nil {
		return err
	}
	err = records(ctx, out, s, o.Edit)
	if err == nil && !o.WithoutPages {
		err = pages(ctx, out, s, o.Progress)
	}
	if err != nil {
		out.Abort()
		return err
	}
	return out.Close()
}

func records(ctx context.Context, w *dump.Writer, s *dump.Snapshot, edit func(proto.Message) error) error {
	for _, k := range s.Keys() {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := s.Record(k)
		if err != nil {
			return err
		}
		m, err := rec.Message()
		if err != nil {
			return err
		}
		if err := edit(m); err != nil {
			return fmt.Errorf("record %s: %w", k, err)
		}
		if err := w.Put(k.ID, m); err != nil {
			return err
		}
	}
	return nil
}
