package diff

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"vps/dump/show"
)

// Field is a field of a message that is different. A value is shown as showdump does, in short; none is empty.
type Field struct {
	Name string `json:"name"` // with those of the messages around it: fd 3: cloexec
	Old  string `json:"old"`
	New  string `json:"new"`
}

// identities are the fields by which elements of lists are the same one, with what to call them.
var identities = map[protoreflect.FullName]struct {
	field protoreflect.Name
	verb  string
}{
	"vps.dump.Fd":         {"fd", "fd %d"},
	"vps.dump.EpollItem":  {"fd", "fd %d"},
	"vps.dump.Mapping":    {"start", "mapping %#x"},
	"vps.dump.SigAction":  {"signal", "signal %d"},
	"vps.dump.PosixTimer": {"id", "timer %d"},
}

var short, full = show.Options{}, show.Options{Full: true}

// comparer collects differences.
type comparer struct {
	found []Field
	at    []string // names of the fields around
}

// compare returns what is different in two messages of one type.
func compare(a, b proto.Message) []Field {
	c := &comparer{}
	c.messages(a.ProtoReflect(), b.ProtoReflect())
	return c.found
}

func (c *comparer) enter(name string) { c.at = append(c.at, name) }
func (c *comparer) leave()            { c.at = c.at[:len(c.at)-1] }

func (c *comparer) differ(old, now string) {
	if old != now {
		c.found = append(c.found, Field{strings.Join(c.at, ": "), old, now})
	}
}

func (c *comparer) messages(a, b protoreflect.Message) {
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !a.Has(f) && !b.Has(f) {
			continue
		}
		c.enter(string(f.Name()))
		switch {
		case f.IsMap():
			c.maps(f, a.Get(f).Map(), b.Get(f).Map())
		case f.IsList() && f.Message() != nil:
			c.leave()
			c.lists(f, a.Get(f).List(), b.Get(f).List())
			continue
		case f.IsList():
			c.scalars(f, a.Get(f), b.Get(f))
		case f.Message() != nil && a.Has(f) && b.Has(f):
			c.messages(a.Get(f).Message(), b.Get(f).Message())
		case f.Kind() == protoreflect.BytesKind:
			c.differ(describeBytes(a.Get(f).Bytes(), b.Get(f).Bytes()), describeBytes(b.Get(f).Bytes(), a.Get(f).Bytes()))
		default:
			c.differ(present(a, f), present(b, f))
		}
		c.leave()
	}
}

// present shows a field; one that is not set has the value that it stands for, if it is a number.
func present(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	if !m.Has(f) && (f.Message() != nil || f.ContainingOneof() != nil) {
		return ""
	}
	return full.Value(f, m.Get(f))
}

// scalars compares lists of numbers or strings as a whole. They are shown in part if that shows the difference.
func (c *comparer) scalars(f protoreflect.FieldDescriptor, a, b protoreflect.Value) {
	old, now := full.Value(f, a), full.Value(f, b)
	if old == now {
		return
	}
	if x, y := short.Value(f, a), short.Value(f, b); x != y {
		old, now = x, y
	}
	c.differ(old, now)
}

// lists compares elements by what identifies them, else by their places.
func (c *comparer) lists(f protoreflect.FieldDescriptor, a, b protoreflect.List) {
	names := func(l protoreflect.List) ([]string, map[string]protoreflect.Message) {
		order, byName := make([]string, l.Len()), make(map[string]protoreflect.Message, l.Len())
		for i := range l.Len() {
			m := l.Get(i).Message()
			name := fmt.Sprintf("%s %d", f.Name(), i)
			if id, ok := identities[f.Message().FullName()]; ok {
				name = fmt.Sprintf(id.verb, m.Get(f.Message().Fields().ByName(id.field)).Interface())
			}
			if _, twice := byName[name]; twice {
				name = fmt.Sprintf("%s (%d)", name, i)
			}
			order[i], byName[name] = name, m
		}
		return order, byName
	}
	orderA, inA := names(a)
	orderB, inB := names(b)
	for _, name := range orderA {
		c.enter(name)
		if other, ok := inB[name]; ok {
			c.messages(inA[name], other)
		} else {
			c.differ(short.Fields(inA[name]), "")
		}
		c.leave()
	}
	for _, name := range orderB {
		if _, ok := inA[name]; !ok {
			c.enter(name)
			c.differ("", short.Fields(inB[name]))
			c.leave()
		}
	}
}

func (c *comparer) maps(f protoreflect.FieldDescriptor, a, b protoreflect.Map) {
	var keys []string
	values := make(map[string][2]string)
	for side, m := range []protoreflect.Map{a, b} {
		m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			name := fmt.Sprintf("%q", k.String())
			pair, ok := values[name]
			if !ok {
				keys = append(keys, name)
			}
			pair[side] = full.Value(f.MapValue(), v)
			values[name] = pair
			return true
		})
	}
	slices.Sort(keys)
	for _, name := range keys {
		c.enter(name)
		c.differ(values[name][0], values[name][1])
		c.leave()
	}
}

// describeBytes tells how a byte string differs from another one.
func describeBytes(b, other []byte) string {
	const shown = 16
	at := 0
	for at < len(b) && at < len(other) && b[at] == other[at] {
		at++
	}
	if len(b) <= shown {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%d bytes, from %d on %q", len(b), at, b[at:min(at+shown, len(b))])
}
