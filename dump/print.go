package dump

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// PrintOptions say how much Print shows.
type PrintOptions struct {
	Full bool // long lists and byte strings in full, and every extent of memory
}

// Print writes what is in a snapshot as text: header, processes as a tree, records, memory.
// The snapshot's own strings are quoted, so that they cannot play with a terminal.
func Print(w io.Writer, s *Snapshot, o PrintOptions) error {
	p := &printer{Writer: bufio.NewWriter(w), s: s, o: o}
	p.header()
	return errors.Join(p.tree(), p.records(), p.memory(), p.Flush())
}

type printer struct {
	*bufio.Writer
	s *Snapshot
	o PrintOptions
}

// line writes a line; a failure to write shows in Flush.
func (p *printer) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *printer) header() {
	h := p.s.header
	p.line("snapshot of %q, format %s, %d bytes", h.Instance, p.s.version, p.s.size)
	p.line("written %s on %q, kernel %q, pages of %d bytes", time.Unix(0, h.Created).UTC().Format(time.RFC3339), h.Arch, h.Kernel, h.PageSize)
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
	ids := p.s.IDs(Type_TYPE_PROCESS)
	nodes := make(map[uint64]*node, len(ids))
	parents := make(map[uint64]uint64, len(ids))
	memory := make(map[uint64]uint64) // of an Mm, in KiB; many processes may refer to one
	for _, pid := range ids {
		proc, err := Get[*Process](p.s, pid)
		if err != nil {
			return err
		}
		if _, ok := memory[proc.Mm]; !ok {
			u, _ := p.s.usage(Key{Type_TYPE_MM, proc.Mm})
			memory[proc.Mm] = (u.stored + u.shared) * p.s.ledger.pageSize >> 10
		}
		var name string
		if leader, err := Get[*Thread](p.s, pid); err == nil {
			name = leader.Comm
		} else if !errors.Is(err, ErrNotFound) {
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
		case isUnsupported(err):
			p.line("  %s: %v", k, err)
		case err != nil:
			return err
		default:
			p.line("  %s%s", k, p.fields(m.ProtoReflect()))
		}
	}
	return nil
}

func (p *printer) memory() error {
	if len(p.s.ledger.frames) == 0 {
		return nil
	}
	p.line("\nmemory")
	for _, k := range p.s.Keys() {
		u, extents := p.s.usage(k)
		if len(extents) == 0 {
			continue
		}
		p.line("  %s: %d pages stored, %d shared, %d zero", k, u.stored, u.shared, u.zero)
		if !p.o.Full {
			continue
		}
		for _, e := range extents {
			if e.Frame == Zero {
				p.line("    %v zero", e.Range)
			} else {
				p.line("    %v frame %d page %d", e.Range, e.Frame, e.Index)
			}
		}
	}
	return nil
}

// usage counts pages.
type usage struct{ stored, shared, zero uint64 }

// usage returns the pages of an object; shared are those that were stored for another one.
func (s *Snapshot) usage(k Key) (u usage, extents []Extent) {
	extents = s.Extents(k)
	for _, e := range extents {
		n := e.Len() / s.ledger.pageSize
		switch {
		case e.Frame == Zero:
			u.zero += n
		case s.ledger.frames[e.Frame].Key != k:
			u.shared += n
		default:
			u.stored += n
		}
	}
	return u, extents
}

// How much of a list and of a byte string is shown, unless everything is.
const (
	shownItems = 16
	shownBytes = 32
)

// fields gives the fields of a message as name=value, in the order of their numbers.
func (p *printer) fields(m protoreflect.Message) string {
	var b strings.Builder
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		fmt.Fprintf(&b, " %s=", f.Name())
		switch v := m.Get(f); {
		case f.IsList():
			p.list(&b, f, v.List())
		case f.IsMap():
			fmt.Fprintf(&b, "[%d entries]", v.Map().Len())
		default:
			p.value(&b, f, v)
		}
	}
	if raw := m.GetUnknown(); len(raw) > 0 {
		fmt.Fprintf(&b, " (and %d bytes of unknown fields)", len(raw))
	}
	return b.String()
}

func (p *printer) list(b *strings.Builder, f protoreflect.FieldDescriptor, l protoreflect.List) {
	b.WriteByte('[')
	for i := range l.Len() {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i == shownItems && !p.o.Full {
			fmt.Fprintf(b, "and %d more", l.Len()-i)
			break
		}
		p.value(b, f, l.Get(i))
	}
	b.WriteByte(']')
}

func (p *printer) value(b *strings.Builder, f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		fmt.Fprintf(b, "{%s}", strings.TrimPrefix(p.fields(v.Message()), " "))
	case protoreflect.StringKind:
		fmt.Fprintf(b, "%q", v.String())
	case protoreflect.BytesKind:
		if raw := v.Bytes(); len(raw) > shownBytes && !p.o.Full {
			fmt.Fprintf(b, "%q and %d more bytes", raw[:shownBytes], len(raw)-shownBytes)
		} else {
			fmt.Fprintf(b, "%q", raw)
		}
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			b.WriteString(string(e.Name()))
		} else {
			fmt.Fprint(b, v.Enum())
		}
	case protoreflect.Uint64Kind:
		if n := v.Uint(); n >= 1<<20 {
			fmt.Fprintf(b, "%#x", n)
			return
		}
		fmt.Fprint(b, v.Interface())
	default:
		fmt.Fprint(b, v.Interface())
	}
}
