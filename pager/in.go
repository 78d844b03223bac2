package pager

import (
	"context"
	"fmt"
	"io"

	"vps/dump"
	"vps/remote"
)

// zeros is what a zero page over a file's page is made of.
var zeros [pageSize]byte

// Fill writes the pages of the Mm record id into the memory of a process, by its pid here. The pages are mapped there,
// writable, private and untouched. A page that is zero is written only where backed says that a file lies below.
func Fill(ctx context.Context, s *dump.Snapshot, id uint64, pid int, backed func(address uint64) bool) error {
	for run, err := range s.Pages(dump.Key{Type: dump.Type_TYPE_MM, ID: id}) {
		if err != nil {
			return fmt.Errorf("read pages: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if run.Data != nil {
			err = remote.WriteMemory(pid, run.Start, run.Data)
		} else {
			err = fillZeros(run.Range, pid, backed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func fillZeros(r dump.Range, pid int, backed func(address uint64) bool) error {
	for at := r.Start; at < r.End; at += pageSize {
		if backed(at) {
			if err := remote.WriteMemory(pid, at, zeros[:]); err != nil {
				return err
			}
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
