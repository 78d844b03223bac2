package restore_test

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"vps/dump"
)

// mutation changes one field of one record.
type mutation struct {
	key   dump.Key
	field string // path of the field, with indexes
	op    string
	apply func(proto.Message)
}

func (m mutation) String() string { return fmt.Sprintf("%s.%s %s", m.key, m.field, m.op) }

// class is the field without the record and the place in lists.
func (m mutation) class() string {
	class := m.key.Type.String() + "."
	for part := range strings.SplitSeq(m.field, ".") {
		name, _, _ := strings.Cut(part, "[")
		class += name + "."
	}
	return class
}

// mutations lists the changes that can be made to a record.
func mutations(key dump.Key, m proto.Message) []mutation {
	w := walker{key: key}
	w.message(m.ProtoReflect(), "", func(root protoreflect.Message) protoreflect.Message { return root })
	return w.found
}

// walker finds fields. Each is reached again from the root of a copy of the message.
type walker struct {
	key   dump.Key
	found []mutation
}

type reach func(root protoreflect.Message) protoreflect.Message

func (w *walker) add(field, op string, at reach, change func(protoreflect.Message)) {
	w.found = append(w.found, mutation{w.key, field, op, func(m proto.Message) { change(at(m.ProtoReflect())) }})
}

func (w *walker) message(m protoreflect.Message, prefix string, at reach) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := prefix + string(fd.Name())
		switch {
		case fd.IsMap():
			w.add(name, "emptied", at, func(m protoreflect.Message) { m.Clear(fd) })
		case fd.IsList():
			w.list(m, fd, name, at)
		case fd.Message() != nil:
			if !m.Has(fd) {
				if fd.ContainingOneof() == nil {
					w.add(name, "made", at, func(m protoreflect.Message) { m.Mutable(fd) })
				}
				continue
			}
			w.add(name, "removed", at, func(m protoreflect.Message) { m.Clear(fd) })
			w.message(m.Get(fd).Message(), name+".", func(root protoreflect.Message) protoreflect.Message {
				return at(root).Mutable(fd).Message()
			})
		case fd.ContainingOneof() == nil || m.Has(fd):
			for op, v := range scalars(fd, m.Get(fd)) {
				w.add(name, op, at, func(m protoreflect.Message) { m.Set(fd, v) })
			}
		}
	}
}

func (w *walker) list(m protoreflect.Message, fd protoreflect.FieldDescriptor, name string, at reach) {
	n := m.Get(fd).List().Len()
	if n == 0 {
		if fd.Message() != nil {
			w.add(name, "one empty", at, func(m protoreflect.Message) { m.Mutable(fd).List().AppendMutable() })
		}
		return
	}
	w.add(name, "emptied", at, func(m protoreflect.Message) { m.Clear(fd) })
	again := func(times int) func(protoreflect.Message) {
		return func(m protoreflect.Message) {
			l := m.Mutable(fd).List()
			for range times {
				l.Append(l.Get(0))
			}
		}
	}
	w.add(name, "first again", at, again(1))
	w.add(name, "many", at, again(20_000))
	w.add(name, "last removed", at, func(m protoreflect.Message) { l := m.Mutable(fd).List(); l.Truncate(l.Len() - 1) })
	w.add(name, "reversed", at, func(m protoreflect.Message) {
		l := m.Mutable(fd).List()
		for i, j := 0, l.Len()-1; i < j; i, j = i+1, j-1 {
			a, b := l.Get(i), l.Get(j)
			l.Set(i, b)
			l.Set(j, a)
		}
	})
	for _, i := range []int{0, n - 1} {
		element := fmt.Sprintf("%s[%d]", name, i)
		if fd.Message() != nil {
			w.message(m.Get(fd).List().Get(i).Message(), element+".", func(root protoreflect.Message) protoreflect.Message {
				return at(root).Mutable(fd).List().Get(i).Message()
			})
		} else {
			for op, v := range scalars(fd, m.Get(fd).List().Get(i)) {
				w.add(element, op, at, func(m protoreflect.Message) { m.Mutable(fd).List().Set(i, v) })
			}
		}
		if n == 1 {
			break
		}
	}
}

// scalars gives values that a field does not have.
func scalars(fd protoreflect.FieldDescriptor, v protoreflect.Value) map[string]protoreflect.Value {
	values := make(map[string]protoreflect.Value)
	add := func(op string, value any) {
		if n := protoreflect.ValueOf(value); !n.Equal(v) {
			values[op] = n
		}
	}
	switch fd.Kind() {
	case protoreflect.BoolKind:
		add("toggled", !v.Bool())
	case protoreflect.EnumKind:
		for _, n := range []protoreflect.EnumNumber{0, 1, 2, 3, 99, -1} {
			add(fmt.Sprint(n), n)
		}
	case protoreflect.Uint32Kind:
		n := uint32(v.Uint())
		add("0", uint32(0))
		add("1", uint32(1))
		add("max", uint32(math.MaxUint32))
		add("middle", uint32(math.MaxInt32))
		add("one more", n+1)
		add("one less", n-1)
	case protoreflect.Uint64Kind:
		n := v.Uint()
		add("0", uint64(0))
		add("1", uint64(1))
		add("max", uint64(math.MaxUint64))
		add("middle", uint64(math.MaxInt64))
		add("one more", n+1)
		add("one less", n-1)
		add("a page more", n+4096)
		add("an arena's", uint64(0x100000001000))
	case protoreflect.Int32Kind:
		n := int32(v.Int())
		add("0", int32(0))
		add("max", int32(math.MaxInt32))
		add("min", int32(math.MinInt32))
		add("one more", n+1)
		add("one less", n-1)
	case protoreflect.Int64Kind:
		n := v.Int()
		add("0", int64(0))
		add("max", int64(math.MaxInt64))
		add("min", int64(math.MinInt64))
		add("one more", n+1)
		add("one less", n-1)
	case protoreflect.StringKind:
		add("empty", "")
		add("long", "/"+strings.Repeat("x", 10_000))
		add("a descriptor of ours", "/proc/self/fd/3")
		add("upwards", "/../../../../../etc/shadow")
		add("memory", "/proc/1/mem")
		add("NUL", "/etc\x00/passwd")
		add("more", v.String()+"x")
	case protoreflect.BytesKind:
		b := v.Bytes()
		add("empty", []byte{})
		add("long", bytes.Repeat([]byte{0xff}, 300_000))
		add("doubled", append(bytes.Clone(b), b...))
		if len(b) > 0 {
			add("shorter", b[:len(b)-1])
			add("first byte flipped", append([]byte{^b[0]}, b[1:]...))
			add("ones", bytes.Repeat([]byte{0xff}, len(b)))
		}
	}
	return values
}

// records are those of a snapshot, in their order.
type records struct {
	header   *dump.Header
	keys     []dump.Key
	messages map[dump.Key]proto.Message
}

func readRecords(t testing.TB, s *dump.Snapshot) *records {
	t.Helper()
	r := &records{header: s.Header(), keys: s.Keys(), messages: make(map[dump.Key]proto.Message)}
	for _, k := range r.keys {
		rec, err := s.Record(k)
		if err != nil {
			t.Fatal(err)
		}
		if r.messages[k], err = rec.Message(); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// write makes a snapshot of the records, with those in place replaced, and with the pages of another one, if that is given.
func (r *records) write(t testing.TB, place map[dump.Key]proto.Message, pages *dump.Snapshot) *dump.Snapshot {
	t.Helper()
	data := r.bytes(t, place, pages)
	s, err := dump.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *records) bytes(t testing.TB, place map[dump.Key]proto.Message, pages *dump.Snapshot) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := dump.NewWriter(&buf, r.header, dump.Plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range r.keys {
		m, ok := place[k]
		if !ok {
			m = r.messages[k]
		}
		if err := w.Put(k.ID, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range r.keys {
		if pages == nil {
			break
		}
		var ranges []dump.Range
		for _, e := range pages.Extents(k) {
			ranges = append(ranges, e.Range)
		}
		err := w.WritePages(k, ranges, func(buf []byte, ranges []dump.Range) error {
			for _, r := range ranges {
				if err := pages.ReadPages(k, r.Start, buf[:r.Len()]); err != nil {
					return err
				}
				buf = buf[r.Len():]
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// mutated makes a snapshot in which one field is changed.
func (r *records) mutated(t testing.TB, m mutation, pages *dump.Snapshot) *dump.Snapshot {
	t.Helper()
	message := proto.Clone(r.messages[m.key])
	m.apply(message)
	return r.write(t, map[dump.Key]proto.Message{m.key: message}, pages)
}

// all lists the changes to the records, to at most some of each type.
func (r *records) all(some int) []mutation {
	var list []mutation
	count := make(map[string]int)
	for _, k := range r.keys {
		sort := k.Type.String()
		if f, ok := r.messages[k].(*dump.File); ok {
			sort += fmt.Sprintf("%T", f.GetKind())
		}
		if count[sort]++; count[sort] <= some {
			list = append(list, mutations(k, r.messages[k])...)
		}
	}
	return list
}
