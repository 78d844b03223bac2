package dump

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"vps/dump/internal/message"
)

// Key names a record: its type, and the id of the object that it describes. Pages have the key of their record.
type Key struct {
	Type Type
	ID   uint64
}

// String gives the key as messages show it: PROCESS 12.
func (k Key) String() string { return fmt.Sprintf("%s %d", TypeName(k.Type), k.ID) }

// Compare orders keys by type and id, as [Snapshot.Keys] has them.
func (k Key) Compare(other Key) int {
	return cmp.Or(cmp.Compare(uint32(k.Type), uint32(other.Type)), cmp.Compare(k.ID, other.ID))
}

// TypeName returns the name of a type without its prefix: PROCESS.
func TypeName(t Type) string {
	if v := t.Descriptor().Values().ByNumber(t.Number()); v != nil {
		return strings.TrimPrefix(string(v.Name()), "TYPE_")
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// ParseKey reads a key as a person writes it: process:12, FD_TABLE:1.
func ParseKey(text string) (Key, error) {
	name, number, _ := strings.Cut(text, ":")
	t := Type(Type_value["TYPE_"+strings.ToUpper(name)])
	id, err := strconv.ParseUint(number, 10, 64)
	if t == Type_TYPE_UNSPECIFIED || err != nil || id == 0 {
		return Key{}, fmt.Errorf("%q is no TYPE:ID of a record", text)
	}
	return Key{t, id}, nil
}

var types = sync.OnceValue(func() *message.Types { return message.TypesOf(Type(0).Descriptor()) })

// TypeOf returns the type of the records that hold such a message, or TYPE_UNSPECIFIED if none do.
func TypeOf(m proto.Message) Type { return Type(types().Number(m)) }

// decode turns a payload into the message of its type. Failures are at off.
func decode(k Key, payload []byte, off int64, v Version) (proto.Message, error) {
	t, ok := types().Message(k.Type.Number())
	if !ok {
		return nil, formatError(ErrUnsupported, off, "cannot read record type %d (written by format %s)", uint32(k.Type), v)
	}
	m, err := message.Unmarshal(payload, t)
	if err != nil {
		return nil, corrupt(off, "record %s: %v", k, err)
	}
	return m, nil
}
