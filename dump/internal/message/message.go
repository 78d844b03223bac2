// Package message encodes the messages of records, and decodes them from hostile input.
package message

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxFields bounds the strings, byte strings and messages within one record. An empty one takes two
// bytes in a file and a hundred in memory, so the limit on the payload's length alone is not enough.
const maxFields = 1 << 20

// maxDepth bounds how deep messages stand within each other.
const maxDepth = 100

// Unmarshal decodes what Marshal encoded.
func Unmarshal(payload []byte, t protoreflect.MessageType) (proto.Message, error) {
	if n, err := countFields(payload, t.Descriptor(), maxDepth); err != nil {
		return nil, err
	} else if n > maxFields {
		return nil, fmt.Errorf("more than %d fields", maxFields)
	}
	m := t.New()
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(payload, m.Interface()); err != nil {
		return nil, err
	}
	if bytes.Contains(payload, []byte(byteMark)) {
		if err := mapStrings(m, loadText); err != nil {
			return nil, err
		}
	}
	return m.Interface(), nil
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

// Unknown reports the first field that the schema here does not have, as a path of names.
func Unknown(m protoreflect.Message) (path string, found bool) {
	if raw := m.GetUnknown(); len(raw) > 0 {
		number, _, _ := protowire.ConsumeTag(raw)
		return fmt.Sprintf("field %d", number), true
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				path, found = Unknown(v.Message())
				return !found
			})
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				path, found = Unknown(v.List().Get(i).Message())
			}
		default:
			path, found = Unknown(v.Message())
		}
		if found {
			path = string(f.Name()) + ": " + path
		}
		return !found
	})
	return path, found
}
