package pager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

// zeros is what zero pages over a file's pages are made of.
var zeros [16 * pageSize]byte

// Memory is what a process is to get of a snapshot's pages. They are mapped there, private and writable, and missing.
type Memory struct {
	Name    string        // of the process, for errors
	PID     int           // its pid here
	Extents []dump.Extent // ascending
	Backed  []dump.Range  // below these lies a file: there, zero pages are written too
	Huge    []dump.Range  // what may have huge pages, ascending

	// Fault is a userfaultfd(2) of the process with nothing registered, -1 for none; Anonymous is what it may serve. It
	// takes half the time that it takes to write into pages that are missing. It stays the caller's, with that registered, and with
	// the features UFFD_FEATURE_*; if that is among them, UFFD_FEATURE_POISON only where the kernel has it.
	Fault     int
	Features  uint64
	Anonymous []dump.Range // ascending
}

// Fill gives processes their pages. The file is read once, frame by frame, whoever gets what is in it; as long as Fill has not
// returned without an error, nothing in those processes is to be trusted.
func Fill(ctx context.Context, s *dump.Snapshot, memories []*Memory) error {
	var huge, small []piece
	for _, m := range memories {
		rest := m.Extents
		var large []dump.Extent
		if areas := hugeAreas(m.Huge, m.Extents); len(areas) > 0 {
			large, rest = Divide(m.Extents, areas)
		}
		for _, e := range large {
			huge = append(huge, piece{Extent: e, to: m})
		}
		var copied []dump.Extent
		if m.Fault >= 0 {
			copied, rest = Divide(rest, m.Anonymous)
		}
		for _, e := range copied {
			small = append(small, piece{Extent: e, to: m, copied: true})
		}
		for _, e := range rest {
			small = append(small, piece{Extent: e, to: m})
		}
	}
	if err := fill(ctx, s, huge); err != nil {
		return err
	}
	for _, m := range memories {
		if err := m.register(); err != nil {
			return err
		}
	}
	return fill(ctx, s, small)
}

// register makes the userfaultfd serve what is anonymous. No page is written there any more: it would wait.
func (m *Memory) register() error {
	if m.Fault < 0 {
		return nil
	}
	err := linux.UffdEnable(m.Fault, m.Features)
	if errors.Is(err, unix.EINVAL) && m.Features&linux.UFFD_FEATURE_POISON != 0 {
		err = linux.UffdEnable(m.Fault, m.Features&^linux.UFFD_FEATURE_POISON)
	}
	if err != nil {
		return fmt.Errorf("%s: userfaultfd: %w", m.Name, err)
	}
	for _, r := range m.Anonymous {
		if err := linux.UffdRegister(m.Fault, r.Start, r.End, linux.UFFDIO_REGISTER_MODE_MISSING); err != nil {
			return fmt.Errorf("%s: userfaultfd: register %v: %w", m.Name, r, err)
		}
	}
	return nil
}

// piece is an extent on its way into a process.
type piece struct {
	dump.Extent
	to     *Memory
	copied bool // by its userfaultfd
}

// fill moves pieces. Each worker takes the next frame.
func fill(ctx context.Context, s *dump.Snapshot, pieces []piece) error {
	slices.SortFunc(pieces, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.Frame, b.Frame), cmp.Compare(a.Index, b.Index))
	})
	var frames [][]piece
	for len(pieces) > 0 {
		n := 1
		for n < len(pieces) && pieces[n].Frame == pieces[0].Frame {
			n++
		}
		frames, pieces = append(frames, pieces[:n]), pieces[n:]
	}
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), len(frames)) {
		g.Go(func() error {
			r := s.NewFrameReader()
			for i := taken.Add(1) - 1; i < int64(len(frames)); i = taken.Add(1) - 1 {
				if err := fillFrame(ctx, r, frames[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// fillFrame moves the pieces of one frame, those of zeros being one too.
func fillFrame(ctx context.Context, r *dump.FrameReader, pieces []piece) error {
	if pieces[0].Frame == dump.Zero {
		for _, p := range pieces {
			if err := p.to.fillZeros(ctx, p.Range); err != nil {
				return err
			}
		}
		return nil
	}
	return r.Stream(pieces[0].Frame, func(index int, pages []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		into := writing{pages: pages}
		last := index + len(pages)/pageSize
		for _, p := range pieces {
			if p.Index >= last {
				break
			}
			from, to := max(p.Index, index), min(p.Index+int(p.Len()/pageSize), last)
			if from >= to {
				continue
			}
			at := p.Start + uint64(from-p.Index)*pageSize
			from, to = (from-index)*pageSize, (to-index)*pageSize
			var err error
			if p.copied {
				err = p.to.copy(at, pages[from:to])
			} else {
				err = into.add(p.to, at, from, to)
			}
			if err != nil {
				return err
			}
		}
		return into.flush()
	})
}

// copy puts pages where they are missing. What is one range here may be several mappings for the kernel, to each of which goes its own.
func (m *Memory) copy(at uint64, data []byte) error {
	for size := len(data); len(data) > 0; {
		size = min(size, len(data))
		n, err := linux.UffdCopy(m.Fault, at, data[:size])
		switch {
		case n > 0:
			at, data, size = at+uint64(n), data[n:], 2*n
		case errors.Is(err, unix.ENOENT) && size > pageSize:
			size = size / 2 &^ (pageSize - 1)
		default:
			return fmt.Errorf("%s: put %d bytes at %#x: %w", m.Name, size, at, err)
		}
	}
	return nil
}

// fillZeros goes by the ranges that are backed: a snapshot may claim any number of zero pages.
func (m *Memory) fillZeros(ctx context.Context, r dump.Range) error {
	for _, b := range m.Backed {
		end := min(r.End, b.End)
		for at := max(r.Start, b.Start); at < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := zeros[:min(end-at, uint64(len(zeros)))]
			if err := remote.WriteMemory(m.PID, at, part); err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			at += uint64(len(part))
		}
	}
	return nil
}

// writing gathers pages that follow each other and go to places in one process.
type writing struct {
	pages      []byte
	to         *Memory
	start, end int // of what is gathered
	places     []dump.Range
}

func (w *writing) add(to *Memory, at uint64, start, end int) error {
	if w.to != to || w.end != start || len(w.places) == remote.MaxScatter {
		if err := w.flush(); err != nil {
			return err
		}
		w.to, w.start = to, start
	}
	w.end = end
	w.places = append(w.places, dump.Range{Start: at, End: at + uint64(end-start)})
	return nil
}

func (w *writing) flush() error {
	if len(w.places) == 0 {
		return nil
	}
	if err := remote.ScatterMemory(w.to.PID, w.places, w.pages[w.start:w.end]); err != nil {
		return fmt.Errorf("%s: %w", w.to.Name, err)
	}
	w.places = w.places[:0]
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
