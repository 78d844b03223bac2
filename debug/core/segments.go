package core

import (
	"context"
	"debug/elf"
	"io"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/dump/page"
)

// segment is a part of a mapping. One that is not stored reads as what lies below: a file, or else zeros.
type segment struct {
	dump.Range
	flags  uint32
	stored bool
	pieces []piece // of a stored one, without a gap
}

// piece is where the content of a range comes from.
type piece struct {
	dump.Range
	key  dump.Key
	from uint64 // address or offset in the object of key
	zero bool
	code []byte // nil, or the content itself
}

// maxSegments bounds the program headers of a core file: each mapping of one Memory could have as many as that has pages.
const maxSegments = 1 << 20

// small is a gap of zeros that is stored for the sake of a smaller number of segments, in pages.
const small = 16

// layout divides the mappings into segments.
func (p *process) layout() ([]segment, error) {
	key := p.key(dump.Type_TYPE_MM, p.mm.GetId())
	if key.ID != p.record.GetMm() {
		return nil, p.corrupt(p.key(dump.Type_TYPE_MM, p.record.GetMm()), "it says that it is %d", key.ID)
	}
	own := p.s.Extents(key)
	shared := make(map[uint64][]dump.Extent)
	var segments []segment
	pieces := 0
	var last uint64
	for _, m := range p.mm.GetMappings() {
		r := dump.Range{Start: m.GetStart(), End: m.GetEnd()}
		if m.GetKind() == dump.Mapping_VVAR || m.GetKind() == dump.Mapping_VSYSCALL {
			continue // the kernel's: their content is not in the snapshot
		}
		if err := r.Check(p.pageSize); err != nil {
			return nil, p.corrupt(key, "%v", err)
		}
		if r.Start < last {
			return nil, p.corrupt(key, "mapping %v is out of order", r)
		}
		last = r.End
		list := p.private(key, own, r)
		switch m.GetKind() {
		case dump.Mapping_VDSO:
			code := vdso(p.s.Header().GetKernel(), r.Len())
			if code == nil {
				continue
			}
			list = []piece{{Range: r, code: code}}
		case dump.Mapping_MEMORY:
			id := m.GetMemory()
			if _, ok := shared[id]; !ok {
				shared[id] = p.s.Extents(p.key(dump.Type_TYPE_MEMORY, id))
			}
			below, err := p.content(m, shared[id], r)
			if err != nil {
				return nil, err
			}
			list = overlay(below, list)
		}
		if pieces += len(list); pieces > maxSegments {
			return nil, p.corrupt(key, "more than %d pieces of memory", maxSegments)
		}
		segments = p.divide(segments, m, r, list)
	}
	return segments, nil
}

// private returns the pages that a range of addresses has of its own.
func (p *process) private(key dump.Key, own []dump.Extent, r dump.Range) []piece {
	var list []piece
	for _, e := range page.Overlap(own, r) {
		e = e.Cut(r, p.pageSize)
		list = append(list, piece{Range: e.Range, key: key, from: e.Start, zero: e.Frame == dump.Zero})
	}
	return list
}

// content returns the pages that a mapping shows of a Memory record.
func (p *process) content(m *dump.Mapping, extents []dump.Extent, r dump.Range) ([]piece, error) {
	key := p.key(dump.Type_TYPE_MEMORY, m.GetMemory())
	window := dump.Range{Start: m.GetOffset(), End: m.GetOffset() + r.Len()}
	if err := window.Check(p.pageSize); err != nil {
		return nil, p.corrupt(p.key(dump.Type_TYPE_MM, p.mm.GetId()), "mapping %v of %s: %v", r, key, err)
	}
	var list []piece
	for _, e := range page.Overlap(extents, window) {
		e = e.Cut(window, p.pageSize)
		at := r.Start + (e.Start - window.Start)
		list = append(list, piece{
			Range: dump.Range{Start: at, End: at + e.Len()}, key: key, from: e.Start, zero: e.Frame == dump.Zero,
		})
		if len(list) > maxSegments {
			break // layout refuses it
		}
	}
	return list, nil
}

// overlay lays the pieces of one list over those of another one. Both ascend.
func overlay(below, above []piece) []piece {
	var out []piece
	for _, a := range above {
		for len(below) > 0 && below[0].Start < a.Start {
			b := below[0]
			out = append(out, b.until(a.Start))
			if b.End <= a.Start {
				below = below[1:]
				continue
			}
			below[0] = b.since(a.Start)
		}
		for len(below) > 0 && below[0].Start < a.End {
			if below[0].End <= a.End {
				below = below[1:]
				continue
			}
			below[0] = below[0].since(a.End)
		}
		out = append(out, a)
	}
	return append(out, below...)
}

func (p piece) until(end uint64) piece {
	p.End = min(p.End, end)
	return p
}

func (p piece) since(start uint64) piece {
	p.from += start - p.Start
	p.Start = start
	return p
}

// divide appends the segments of a mapping, which cover it.
func (p *process) divide(segments []segment, m *dump.Mapping, r dump.Range, list []piece) []segment {
	backed := m.GetKind() == dump.Mapping_FILE // a gap shows the file
	flags := flags(m.GetProt())
	at := r.Start
	hole := func(end uint64) {
		if at < end {
			segments = append(segments, segment{Range: dump.Range{Start: at, End: end}, flags: flags})
		}
	}
	var open *segment
	for _, c := range list {
		switch {
		case c.zero && !backed:
			continue
		case open != nil && c.Start == at:
		case open != nil && !backed && c.Start-at <= small*p.pageSize:
			open.pieces = append(open.pieces, piece{Range: dump.Range{Start: at, End: c.Start}, zero: true})
		default:
			hole(c.Start)
			segments = append(segments, segment{Range: c.Range, flags: flags, stored: true})
			open = &segments[len(segments)-1]
		}
		open.pieces = append(open.pieces, c)
		open.End, at = c.End, c.End
	}
	hole(r.End)
	return segments
}

func flags(prot uint32) (flags uint32) {
	for bit, flag := range map[uint32]elf.ProgFlag{unix.PROT_READ: elf.PF_R, unix.PROT_WRITE: elf.PF_W, unix.PROT_EXEC: elf.PF_X} {
		if prot&bit != 0 {
			flags |= uint32(flag)
		}
	}
	return flags
}

// writeSegments writes what is stored of the segments.
func (p *process) writeSegments(ctx context.Context, w io.Writer) error {
	buf := make([]byte, 256<<10)
	for _, s := range p.segments {
		for _, c := range s.pieces {
			for at := uint64(0); at < c.Len(); {
				if err := ctx.Err(); err != nil {
					return err
				}
				part := buf[:min(uint64(len(buf)), c.Len()-at)]
				if err := p.read(part, c, at); err != nil {
					return err
				}
				if _, err := w.Write(part); err != nil {
					return err
				}
				at += uint64(len(part))
			}
		}
	}
	return nil
}

// read reads the content of a piece from an offset in it on.
func (p *process) read(buf []byte, c piece, at uint64) error {
	switch {
	case c.zero:
		clear(buf)
	case c.code != nil:
		copy(buf, c.code[at:])
	default:
		return p.s.ReadPages(c.key, c.from+at, buf)
	}
	return nil
}
