package show

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// How much of a list and of a byte string is shown, unless everything is.
const (
	shownItems = 16
	shownBytes = 32
)

// Fields shows a message: its fields as name=value, in the order of their numbers.
func (o Options) Fields(m protoreflect.Message) string {
	return "{" + strings.TrimPrefix(o.fields(m), " ") + "}"
}

// Value shows the value of a field: a list, or one value.
func (o Options) Value(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	var b strings.Builder
	if f.IsList() {
		o.list(&b, f, v.List())
	} else {
		o.value(&b, f, v)
	}
	return b.String()
}

// fields gives the fields of a message as name=value, in the order of their numbers.
func (o Options) fields(m protoreflect.Message) string {
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
			o.list(&b, f, v.List())
		case f.IsMap():
			fmt.Fprintf(&b, "[%d entries]", v.Map().Len())
		default:
			o.value(&b, f, v)
		}
	}
	if raw := m.GetUnknown(); len(raw) > 0 {
		fmt.Fprintf(&b, " (and %d bytes of unknown fields)", len(raw))
	}
	return b.String()
}

func (o Options) list(b *strings.Builder, f protoreflect.FieldDescriptor, l protoreflect.List) {
	b.WriteByte('[')
	for i := range l.Len() {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i == shownItems && !o.Full {
			fmt.Fprintf(b, "and %d more", l.Len()-i)
			break
		}
		o.value(b, f, l.Get(i))
	}
	b.WriteByte(']')
}

func (o Options) value(b *strings.Builder, f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		fmt.Fprintf(b, "{%s}", strings.TrimPrefix(o.fields(v.Message()), " "))
	case protoreflect.StringKind:
		fmt.Fprintf(b, "%q", v.String())
	case protoreflect.BytesKind:
		if raw := v.Bytes(); len(raw) > shownBytes && !o.Full {
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
