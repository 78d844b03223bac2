package message

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Types are the messages that the values of an enum stand for. The schema itself says which: TYPE_FD_TABLE is FdTable.
type Types struct {
	messages map[protoreflect.EnumNumber]protoreflect.MessageType
	numbers  map[protoreflect.FullName]protoreflect.EnumNumber
}

// TypesOf finds the messages of an enum, in its own package. A value without a message stands for none.
func TypesOf(enum protoreflect.EnumDescriptor) *Types {
	t := &Types{
		messages: make(map[protoreflect.EnumNumber]protoreflect.MessageType),
		numbers:  make(map[protoreflect.FullName]protoreflect.EnumNumber),
	}
	for i := range enum.Values().Len() {
		v := enum.Values().Get(i)
		name := enum.ParentFile().Package().Append(messageName(v.Name()))
		if m, err := protoregistry.GlobalTypes.FindMessageByName(name); err == nil {
			t.messages[v.Number()], t.numbers[name] = m, v.Number()
		}
	}
	return t
}

// Message returns the message of a value.
func (t *Types) Message(value protoreflect.EnumNumber) (protoreflect.MessageType, bool) {
	m, ok := t.messages[value]
	return m, ok
}

// Number returns the value of a message; 0 if it has none.
func (t *Types) Number(m proto.Message) protoreflect.EnumNumber {
	return t.numbers[m.ProtoReflect().Descriptor().FullName()]
}

// messageName turns TYPE_FD_TABLE into FdTable.
func messageName(value protoreflect.Name) protoreflect.Name {
	var b strings.Builder
	for word := range strings.SplitSeq(strings.TrimPrefix(string(value), "TYPE_"), "_") {
		b.WriteString(word[:1] + strings.ToLower(word[1:]))
	}
	return protoreflect.Name(b.String())
}
