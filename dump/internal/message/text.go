package message

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The kernel's names and paths are bytes; protobuf's strings are UTF-8. A name that is not, is stored as this mark
// and then one character, U+0000 to U+00FF, for each of its bytes. No name of the kernel's begins like that.
const byteMark = "\x00\u0080"

func storeText(s string) (string, error) {
	if utf8.ValidString(s) {
		return s, nil
	}
	b := []byte(byteMark)
	for i := range len(s) {
		b = utf8.AppendRune(b, rune(s[i]))
	}
	return string(b), nil
}

func loadText(s string) (string, error) {
	text, ok := strings.CutPrefix(s, byteMark)
	if !ok {
		return s, nil
	}
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xff {
			return "", fmt.Errorf("text %q: %U is no byte", s, r)
		}
		b = append(b, byte(r))
	}
	return string(b), nil
}

// Marshal appends a message as a file has it to b.
func Marshal(b []byte, m proto.Message) ([]byte, error) {
	options := proto.MarshalOptions{Deterministic: true}
	out, err := options.MarshalAppend(b, m)
	if err == nil {
		return out, nil
	}
	stored, terr := Storable(m)
	if terr != nil {
		return nil, err
	}
	return options.MarshalAppend(b, stored)
}

// Storable returns a copy of a message whose strings are UTF-8.
func Storable(m proto.Message) (proto.Message, error) {
	m = proto.Clone(m)
	return m, mapStrings(m.ProtoReflect(), storeText)
}

// mapStrings replaces every string of a message.
func mapStrings(m protoreflect.Message, f func(string) (string, error)) error {
	var failed error
	replace := func(v protoreflect.Value) protoreflect.Value {
		s, err := f(v.String())
		if err != nil && failed == nil {
			failed = err
		}
		return protoreflect.ValueOfString(s)
	}
	inner := func(v protoreflect.Value) {
		if err := mapStrings(v.Message(), f); err != nil && failed == nil {
			failed = err
		}
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap():
			v.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
				if field.MapValue().Kind() == protoreflect.StringKind {
					v.Map().Set(key, replace(value))
				}
				return true
			})
		case field.IsList() && field.Kind() == protoreflect.StringKind:
			for i := range v.List().Len() {
				v.List().Set(i, replace(v.List().Get(i)))
			}
		case field.IsList() && field.Message() != nil:
			for i := range v.List().Len() {
				inner(v.List().Get(i))
			}
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, replace(v))
		case field.Message() != nil:
			inner(v)
		}
		return failed == nil
	})
	return failed
}
