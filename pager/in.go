package pager

import (
	"context"
	"fmt"
	"io"
	"iter"
	"runtime"

	"golang.org/x/sync/errgroup"

	"vps/dump"
	"vps/remote"
)

// zeros is what zero pages over a file's pages are made of.
var zeros [16 * pageSize]byte

// Fill writes the pages of the Mm record id into the memory of a process, by its pid here. The pages are mapped there,
// writable, private and untouched. Pages that are zero are written only in the ranges backed, below which a file lies.
func Fill(ctx context.Context, s *dump.Snapshot, id uint64, pid int, backed []dump.Range) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, runs := range s.PagesInParts(dump.Key{Type: dump.Type_TYPE_MM, ID: id}, runtime.GOMAXPROCS(0)) {
		g.Go(func() error { return fill(ctx, runs, pid, backed) })
	}
	return g.Wait()
}

func fill(ctx context.Context, runs iter.Seq2[dump.Run, error], pid int, backed []dump.Range) error {
	for run, err := range runs {
		if err != nil {
			return fmt.Errorf("read pages: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if run.Data != nil {
			err = remote.WriteMemory(pid, run.Start, run.Data)
		} else {
			err = fillZeros(ctx, run.Range, pid, backed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fillZeros goes by the ranges that are backed: a snapshot may claim any number of zero pages.
func fillZeros(ctx context.Context, r dump.Range, pid int, backed []dump.Range) error {
	for _, b := range backed {
		end := min(r.End, b.End)
		for at := max(r.Start, b.Start); at < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := zeros[:min(end-at, uint64(len(zeros)))]
			if err := remote.WriteMemory(pid, at, part); err != nil {
				return err
			}
			at += uint64(len(part))
		}
	}
	return nil
}

// FillFile writes the pages of the Memory record id to w, at their offsets; nothing is written beyond size.
func FillFile(s *dump.Snapshot, id uint64, w io.WriterAt, size int64) error {
	for run, err := range s.Pages(dump.Key{Type: dump.Type_TYPE_MEMORY, ID: id}) {
		if err != nil {
			return fmt.Errorf("read content: %w", err)
		}
		if run.Data == nil || int64(run.Start) >= size {
			continue
		}
		data := run.Data[:min(int64(len(run.Data)), size-int64(run.Start))]
		if _, err := w.WriteAt(data, int64(run.Start)); err != nil {
			return fmt.Errorf("write content at %#x: %w", run.Start, err)
		}
	}
	return nil
}
