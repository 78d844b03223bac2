package kmem

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"

	"github.com/cilium/ebpf/btf"
)

// Walk is a way through the kernel's structures. Its first error ends it and stays: values are then zero, and lists empty.
type Walk struct {
	r   *Reader
	err error
}

// Walk begins a walk, which belongs to one goroutine.
func (r *Reader) Walk() *Walk { return &Walk{r: r} }

// Err returns the first error.
func (w *Walk) Err() error { return w.err }

func (w *Walk) fail(format string, args ...any) Value {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
	return Value{w: w}
}

// Value is a place in the kernel's memory with its type.
type Value struct {
	w  *Walk
	t  btf.Type // nil: after an error
	at uint64
}

// At returns the structure of a name at an address.
func (w *Walk) At(structure string, address uint64) Value {
	var s *btf.Struct
	if err := w.r.types.TypeByName(structure, &s); err != nil {
		return w.fail("struct %s: %w", structure, err)
	}
	return Value{w, s, address}
}

// Tasks returns the struct task_struct of every task that can be seen from here, by its tid here.
func (w *Walk) Tasks() map[int]Value {
	tasks := make(map[int]Value)
	list, err := w.r.iter.Open()
	if err != nil {
		w.fail("list tasks: %w", err)
		return tasks
	}
	defer list.Close()
	addresses, err := io.ReadAll(list)
	if err != nil {
		w.fail("list tasks: %w", err)
		return tasks
	}
	for ; len(addresses) >= 16; addresses = addresses[16:] {
		tid := int(binary.LittleEndian.Uint32(addresses[8:]))
		tasks[tid] = w.At("task_struct", binary.LittleEndian.Uint64(addresses))
	}
	return tasks
}

// File returns the struct file of a descriptor of our own.
func (w *Walk) File(fd int) Value {
	leader := w.At("task_struct", 0).Member("group_leader")
	if w.err != nil {
		return leader
	}
	var address [8]byte
	if err := w.r.run(request{Address: leader.at, Own: 1}, address[:]); err != nil {
		return w.fail("%w", err)
	}
	self := w.At("task_struct", binary.LittleEndian.Uint64(address[:]))
	return self.Member("files").Deref().Member("fdt").Deref().Member("fd").Index(fd).Deref()
}

// PID returns the struct pid of a pidfd of our own.
func (w *Walk) PID(pidfd int) Value {
	file := w.File(pidfd)
	pid := file.Member("f_inode").Deref().Member("i_private").Deref() // since Linux 6.9
	if pid.Null() {
		pid = file.Member("private_data").Deref()
	}
	return pid.As("pid")
}

// Null tells whether the place is none: a pointer that was followed was NULL.
func (v Value) Null() bool { return v.at == 0 }

// Address is where the value lies.
func (v Value) Address() uint64 { return v.at }

// Has tells whether a structure has a member, which may differ between kernels.
func (v Value) Has(name string) bool {
	_, _, ok := member(v.t, name)
	return ok
}

// Member returns a member of a structure, and of a structure in that, and so on.
func (v Value) Member(path ...string) Value {
	for _, name := range path {
		t, offset, ok := member(v.t, name)
		if !ok {
			return v.w.fail("%v has no member %s", v.t, name)
		}
		v.t, v.at = t, v.at+uint64(offset)
	}
	return v
}

// Index returns an element of an array, or of one that a pointer leads to.
func (v Value) Index(i int) Value {
	switch t := btf.UnderlyingType(v.t).(type) {
	case *btf.Array:
		v.t = t.Type
	case *btf.Pointer:
		v = v.Deref()
	default:
		return v.w.fail("%v is no array", v.t)
	}
	size, err := btf.Sizeof(v.t)
	if err != nil {
		return v.w.fail("%v: %w", v.t, err)
	}
	v.at += uint64(i * size)
	return v
}

// Deref follows a pointer.
func (v Value) Deref() Value {
	p, ok := btf.UnderlyingType(v.t).(*btf.Pointer)
	if !ok {
		return v.w.fail("%v is no pointer", v.t)
	}
	return Value{v.w, p.Target, v.Uint()}
}

// As takes what lies there for a structure of a name.
func (v Value) As(structure string) Value { return v.w.At(structure, v.at) }

// Container returns the structure of which v is a member.
func (v Value) Container(structure, by string) Value {
	return v.w.At(structure, v.at-v.w.At(structure, 0).Member(by).at)
}

// Behind returns the address behind what lies there.
func (v Value) Behind() uint64 {
	if v.t == nil {
		return 0
	}
	size, err := btf.Sizeof(v.t)
	if err != nil {
		v.w.fail("%v: %w", v.t, err)
	}
	return v.at + uint64(size)
}

// Bytes reads n bytes at an address.
func (w *Walk) Bytes(address uint64, n int) []byte { return Value{w: w, at: address}.Bytes(n) }

// Uint reads a number, which is not extended by its sign, or an address.
func (v Value) Uint() uint64 {
	if v.t == nil || v.w.err != nil {
		return 0
	}
	size, err := btf.Sizeof(v.t)
	if err == nil {
		var n uint64
		if n, err = v.w.r.word(v.at, size); err == nil {
			return n
		}
	}
	v.w.fail("%v: %w", v.t, err)
	return 0
}

// Bytes reads n bytes.
func (v Value) Bytes(n int) []byte {
	buf := make([]byte, n)
	if v.w.err == nil {
		if err := v.w.r.Read(v.at, buf); err != nil {
			v.w.fail("%w", err)
		}
	}
	return buf
}

// maxList bounds how far a list is followed.
const maxList = 1 << 20

// List returns the structures in a list (struct list_head, include/linux/list.h) of which v is the head; they hang in it by
// a member.
func (v Value) List(structure, by string) iter.Seq[Value] {
	return func(yield func(Value) bool) {
		_, offset, ok := member(v.w.At(structure, 0).t, by)
		if !ok {
			v.w.fail("struct %s has no member %s", structure, by)
			return
		}
		at := v.Member("next").Uint()
		for range maxList {
			if v.w.err != nil || at == v.at || at == 0 {
				return
			}
			if !yield(v.w.At(structure, at-uint64(offset))) {
				return
			}
			at = v.w.At("list_head", at).Member("next").Uint()
		}
		v.w.fail("a list of more than %d", maxList)
	}
}

// member finds a member of a structure by name, in anonymous members too.
func member(t btf.Type, name string) (btf.Type, uint32, bool) {
	var members []btf.Member
	if t == nil {
		return nil, 0, false
	}
	switch s := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	}
	for _, m := range members {
		if m.Name == name {
			return m.Type, m.Offset.Bytes(), true
		}
		if m.Name == "" {
			if t, at, ok := member(m.Type, name); ok {
				return t, m.Offset.Bytes() + at, true
			}
		}
	}
	return nil, 0, false
}
