package show

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"vps/dump"
)

// Options say how much Text shows.
type Options struct {
	Full bool // long lists and byte strings in full, and every extent of memory
}

// Text writes what is in a snapshot as text: header, processes as a tree, records, memory.
// The snapshot's own strings are quoted, so that they cannot play with a terminal.
func Text(w io.Writer, s *dump.Snapshot, o Options) error {
	p := &printer{Writer: bufio.NewWriter(w), view: newView(s), o: o}
	p.header()
	return errors.Join(p.tree(), p.records(), p.memory(), p.Flush())
}

type printer struct {
	*bufio.Writer
	*view
	o Options
}

// line writes a line; a failure to write shows in Flush.
func (p *printer) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *printer) header() {
	h := p.s.Header()
	p.line("snapshot of %q, format %s, %d bytes", h.Instance, p.s.Version(), p.s.Size())
	p.line("written %s on %q, kernel %q, pages of %d bytes", time.Unix(0, h.Created).UTC().Format(time.RFC3339), h.Arch, h.Kernel, h.PageSize)
	if h.WithoutPages {
		p.line("without pages: it can be shown, not restored")
	}
	if len(h.CpuFeatures) > 0 {
		p.line("needs %q", h.CpuFeatures)
	}
}

// node is a process of the tree.
type node struct {
	text     string
	children []*node
	depth    int
}

// tree writes the processes, each below its parent.
func (p *printer) tree() error {
	ids := p.s.IDs(dump.Type_TYPE_PROCESS)
	nodes := make(map[uint64]*node, len(ids))
	parents := make(map[uint64]uint64, len(ids))
	memory := make(map[uint64]uint64) // of an Mm, in KiB; many processes may refer to one
	for _, pid := range ids {
		proc, err := dump.Get[*dump.Process](p.s, pid)
		if err != nil {
			return err
		}
		if _, ok := memory[proc.Mm]; !ok {
			u, _ := p.usage(dump.Key{Type: dump.Type_TYPE_MM, ID: proc.Mm})
			memory[proc.Mm] = (u.stored + u.shared) * p.pageSize >> 10
		}
		var name string
		if leader, err := dump.Get[*dump.Thread](p.s, pid); err == nil {
			name = leader.Comm
		} else if !errors.Is(err, dump.ErrNotFound) {
			return err
		}
		nodes[pid] = &node{text: fmt.Sprintf("%d %q %s, %d threads, %d KiB of memory", pid, name,
			strings.ToLower(proc.State.String()), len(proc.Threads), memory[proc.Mm])}
		parents[pid] = uint64(proc.Ppid)
	}
	var roots []*node
	for _, pid := range ids {
		if parent := nodes[parents[pid]]; parent != nil {
			parent.children = append(parent.children, nodes[pid])
		} else {
			roots = append(roots, nodes[pid])
		}
	}
	if len(ids) > 0 {
		p.line("\nprocesses")
	}
	p.branches(roots)
	return nil
}

// branches writes nodes and what is below them. A circle, which a forged file may have, hangs from no root.
func (p *printer) branches(roots []*node) {
	slices.Reverse(roots)
	for stack := roots; len(stack) > 0; {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		p.line("%*s%s", 2*min(n.depth+1, 40), "", n.text)
		for _, child := range slices.Backward(n.children) {
			child.depth = n.depth + 1
			stack = append(stack, child)
		}
	}
}

func (p *printer) records() error {
	p.line("\nrecords")
	for _, k := range p.s.Keys() {
		rec, err := p.s.Record(k)
		if err != nil {
			return err
		}
		m, err := rec.Message()
		switch {
		case errors.Is(err, dump.ErrUnsupported):
			p.line("  %s: %v", k, err)
		case err != nil:
			return err
		default:
			p.line("  %s%s", k, p.o.fields(m.ProtoReflect()))
		}
	}
	return nil
}

func (p *printer) memory() error {
	if len(p.frames) == 0 {
		return nil
	}
	p.line("\nmemory")
	for _, k := range p.s.Keys() {
		u, extents := p.usage(k)
		if len(extents) == 0 {
			continue
		}
		p.line("  %s: %d pages stored, %d shared, %d zero", k, u.stored, u.shared, u.zero)
		if !p.o.Full {
			continue
		}
		for _, e := range extents {
			if e.Frame == dump.Zero {
				p.line("    %v zero", e.Range)
			} else {
				p.line("    %v frame %d page %d", e.Range, e.Frame, e.Index)
			}
		}
	}
	return nil
}
