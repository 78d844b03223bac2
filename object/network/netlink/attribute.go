package netlink

import (
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

const attributeHeader = 4

// Attribute is a piece of a message: struct nlattr of netlink(7).
type Attribute struct {
	Type  uint16 // without flags
	Value []byte
	raw   []byte // with its header
}

// Uint32 is the value of a number of 1, 2 or 4 bytes of this machine, 0 of any other length.
func (a Attribute) Uint32() uint32 {
	switch len(a.Value) {
	case 1:
		return uint32(a.Value[0])
	case 2:
		return uint32(binary.NativeEndian.Uint16(a.Value))
	case 4:
		return binary.NativeEndian.Uint32(a.Value)
	}
	return 0
}

// Big32 is the value of a number of 4 bytes in network order.
func (a Attribute) Big32() uint32 {
	if len(a.Value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a.Value)
}

// Text is the value up to its NUL.
func (a Attribute) Text() string { return unix.ByteSliceToString(a.Value) }

// Bytes is a copy of the value.
func (a Attribute) Bytes() []byte { return append([]byte(nil), a.Value...) }

// Attributes walks over attributes. It ends before what is none.
func Attributes(data []byte) iter.Seq[Attribute] {
	return func(yield func(Attribute) bool) {
		for len(data) >= attributeHeader {
			length := int(binary.NativeEndian.Uint16(data))
			if length < attributeHeader || length > len(data) {
				return
			}
			kind := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(Attribute{kind, data[attributeHeader:length], data[:length]}) {
				return
			}
			data = data[min(len(data), (length+3)&^3):]
		}
	}
}

// Find returns the value of the first attribute of a type, nil if there is none.
func Find(data []byte, kind uint16) []byte {
	for a := range Attributes(data) {
		if a.Type == kind {
			return a.Value
		}
	}
	return nil
}

// Check refuses what is not a list of attributes from end to end.
func Check(data []byte) error {
	n := 0
	for a := range Attributes(data) {
		n += (len(a.raw) + 3) &^ 3
	}
	if n < len(data) {
		return fmt.Errorf("netlink attributes end at %d of %d bytes", n, len(data))
	}
	return nil
}

// Filter returns the attributes whose types keep wants, as they are.
func Filter(data []byte, keep func(kind uint16) bool) []byte {
	var b Builder
	for a := range Attributes(data) {
		if keep(a.Type) {
			b.Raw(a)
		}
	}
	return b
}

// Builder is the body of a message: attributes are added to it.
type Builder []byte

// Bytes adds an attribute.
func (b *Builder) Bytes(kind uint16, value []byte) {
	*b = binary.NativeEndian.AppendUint16(*b, uint16(attributeHeader+len(value)))
	*b = binary.NativeEndian.AppendUint16(*b, kind)
	*b = append(*b, value...)
	b.align()
}

func (b *Builder) align() { *b = append(*b, make([]byte, -len(*b)&3)...) }

// Raw adds an attribute with its flags.
func (b *Builder) Raw(a Attribute) {
	*b = append(*b, a.raw...)
	b.align()
}

// Some adds an attribute unless it is empty.
func (b *Builder) Some(kind uint16, value []byte) {
	if len(value) > 0 {
		b.Bytes(kind, value)
	}
}

// Uint8 adds a number of one byte.
func (b *Builder) Uint8(kind uint16, v uint32) { b.Bytes(kind, []byte{byte(v)}) }

// Uint16 adds a number of two bytes.
func (b *Builder) Uint16(kind uint16, v uint32) {
	b.Bytes(kind, binary.NativeEndian.AppendUint16(nil, uint16(v)))
}

// Uint32 adds a number of four bytes.
func (b *Builder) Uint32(kind uint16, v uint32) {
	b.Bytes(kind, binary.NativeEndian.AppendUint32(nil, v))
}

// SomeUint32 adds a number unless it is 0.
func (b *Builder) SomeUint32(kind uint16, v uint32) {
	if v != 0 {
		b.Uint32(kind, v)
	}
}

// String adds a text with its NUL, unless it is empty.
func (b *Builder) String(kind uint16, text string) {
	if text != "" {
		b.Bytes(kind, append([]byte(text), 0))
	}
}

// Nest adds an attribute that holds those that f adds.
func (b *Builder) Nest(kind uint16, f func(*Builder)) {
	at := len(*b)
	b.Bytes(kind|unix.NLA_F_NESTED, nil)
	f(b)
	binary.NativeEndian.PutUint16((*b)[at:], uint16(len(*b)-at))
}
