package dump

import (
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Key names a record: its type, and the id of the object that it describes. Pages have the key of their record.
type Key struct {
	Type Type
	ID   uint64
}

// String gives the key as messages show it: PROCESS 12.
func (k Key) String() string { return fmt.Sprintf("%s %d", typeName(k.Type), k.ID) }

func typeName(t Type) string {
	if v := t.Descriptor().Values().ByNumber(t.Number()); v != nil {
		return strings.TrimPrefix(string(v.Name()), "TYPE_")
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// messageTypes maps a type to its message. The schema itself says which: TYPE_FD_TABLE is FdTable.
var messageTypes = sync.OnceValue(func() map[Type]protoreflect.MessageType {
	types := make(map[Type]protoreflect.MessageType)
	values := Type(0).Descriptor().Values()
	for i := range values.Len() {
		v := values.Get(i)
		name := File_dump_record_proto.Package().Append(messageName(v.Name()))
		if m, err := protoregistry.GlobalTypes.FindMessageByName(name); err == nil {
			types[Type(v.Number())] = m
		}
	}
	return types
})

// typeNumbers is the reverse of messageTypes.
var typeNumbers = sync.OnceValue(func() map[protoreflect.FullName]Type {
	numbers := make(map[protoreflect.FullName]Type)
	for t, m := range messageTypes() {
		numbers[m.Descriptor().FullName()] = t
	}
	return numbers
})

// messageName turns TYPE_FD_TABLE into FdTable.
func messageName(value protoreflect.Name) protoreflect.Name {
	var b strings.Builder
	for word := range strings.SplitSeq(strings.TrimPrefix(string(value), "TYPE_"), "_") {
		b.WriteString(word[:1] + strings.ToLower(word[1:]))
	}
	return protoreflect.Name(b.String())
}

// TypeOf returns the type of the records that hold such a message, or TYPE_UNSPECIFIED if none do.
func TypeOf(m proto.Message) Type { return typeNumbers()[m.ProtoReflect().Descriptor().FullName()] }

// maxFields bounds the strings, byte strings and messages within one record. An empty one takes two
// bytes in a file and a hundred in memory, so the limit on the payload's length alone is not enough.
const maxFields = 1 << 20

// maxDepth bounds how deep messages stand within each other.
const maxDepth = 100

// decode turns a payload into the message of its type. Failures are at off.
func decode(k Key, payload []byte, off int64, v Version) (proto.Message, error) {
	t, ok := messageTypes()[k.Type]
	if !ok {
		return nil, formatError(ErrUnsupported, off, "cannot read record type %d (written by format %s)", uint32(k.Type), v)
	}
	if n, err := countFields(payload, t.Descriptor(), maxDepth); err != nil {
		return nil, corrupt(off, "record %s: %v", k, err)
	} else if n > maxFields {
		return nil, corrupt(off, "record %s: more than %d fields", k, maxFields)
	}
	m := t.New().Interface()
	if err := unmarshal(payload, m); err != nil {
		return nil, corrupt(off, "record %s: %v", k, err)
	}
	return m, nil
}

// countFields counts the length-delimited fields of a message and of those in it.
func countFields(b []byte, d protoreflect.MessageDescriptor, depth int) (int, error) {
	if depth == 0 {
		return 0, fmt.Errorf("messages more than %d deep", maxDepth)
	}
	count := 0
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(number, kind, b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		if kind == protowire.BytesType {
			count++
			if f := d.Fields().ByNumber(number); f != nil && f.Message() != nil {
				inner, _ := protowire.ConsumeBytes(b)
				c, err := countFields(inner, f.Message(), depth-1)
				if err != nil {
					return 0, err
				}
				count += c
			}
		}
		b = b[n:]
	}
	return count, nil
}

// unknownFields reports the first field that the schema here does not have, as a path of names.
func unknownFields(m protoreflect.Message) (path string, found bool) {
	if raw := m.GetUnknown(); len(raw) > 0 {
		number, _, _ := protowire.ConsumeTag(raw)
		return fmt.Sprintf("field %d", number), true
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				path, found = unknownFields(v.Message())
				return !found
			})
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				path, found = unknownFields(v.List().Get(i).Message())
			}
		default:
			path, found = unknownFields(v.Message())
		}
		if found {
			path = string(f.Name()) + ": " + path
		}
		return !found
	})
	return path, found
}
