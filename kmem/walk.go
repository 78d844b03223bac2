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
	r       *Reader
	members map[memberName]memberPlace // those found so far
	err     error
}

type memberName struct {
	of   btf.Type
	name string
}

type memberPlace struct {
	t     btf.Type
	at    uint32 // in bytes
	first uint32 // a bit field: its first bit there
	bits  uint32 // a bit field: how many; 0: it is none
	found bool
}

// Walk begins a walk, which belongs to one goroutine.
func (r *Reader) Walk() *Walk { return &Walk{r: r, members: make(map[memberName]memberPlace)} }

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
	w           *Walk
	t           btf.Type // nil: after an error
	at          uint64
	first, bits uint32  // of a bit field
	copy        *copied // nil: each value is read when it is asked for
}

// copied is a structure that has been read as a whole.
type copied struct {
	at    uint64
	bytes []byte
}

// At returns the structure of a name at an address.
func (w *Walk) At(structure string, address uint64) Value {
	var s *btf.Struct
	if err := w.r.types.TypeByName(structure, &s); err != nil {
		return w.fail("struct %s: %w", structure, err)
	}
	return Value{w: w, t: s, at: address}
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
	task := w.At("task_struct", 0)
	for ; len(addresses) >= 16; addresses = addresses[16:] {
		task.at = binary.LittleEndian.Uint64(addresses)
		tasks[int(binary.LittleEndian.Uint32(addresses[8:]))] = task
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
	return v.w.member(v.t, name).found
}

// Load reads the structure as a whole: what lies in it is then known without another look.
func (v Value) Load() Value {
	if at := v.Behind(); at > v.at && v.w.err == nil {
		v.copy = &copied{v.at, v.Bytes(int(at - v.at))}
	}
	return v
}

// Member returns a member of a structure, and of a structure in that, and so on.
func (v Value) Member(path ...string) Value {
	for _, name := range path {
		m := v.w.member(v.t, name)
		if !m.found {
			return v.w.fail("%v has no member %s", v.t, name)
		}
		v.t, v.at, v.first, v.bits = m.t, v.at+uint64(m.at), m.first, m.bits
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
	return Value{w: v.w, t: p.Target, at: v.Uint()}
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

// Raw reads all bytes of the value.
func (v Value) Raw() []byte { return v.Bytes(int(v.Behind() - v.at)) }

// Uint reads a number, which is not extended by its sign, or an address.
func (v Value) Uint() uint64 {
	if v.t == nil || v.w.err != nil {
		return 0
	}
	size, err := btf.Sizeof(v.t)
	if err != nil || size > 8 {
		v.w.fail("%v: no number: %w", v.t, err)
		return 0
	}
	var buf [8]byte
	copy(buf[:], v.Bytes(size))
	n := binary.LittleEndian.Uint64(buf[:])
	if v.bits > 0 {
		n = n >> v.first & (1<<v.bits - 1)
	}
	return n
}

// Bytes reads n bytes.
func (v Value) Bytes(n int) []byte {
	if c := v.copy; c != nil && v.at >= c.at && v.at-c.at <= uint64(len(c.bytes)) && uint64(n) <= uint64(len(c.bytes))-(v.at-c.at) {
		return c.bytes[v.at-c.at:][:n]
	}
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
		m := v.w.member(v.w.At(structure, 0).t, by)
		if !m.found {
			v.w.fail("struct %s has no member %s", structure, by)
			return
		}
		at := v.Member("next").Uint()
		for range maxList {
			if v.w.err != nil || at == v.at || at == 0 {
				return
			}
			if !yield(v.w.At(structure, at-uint64(m.at))) {
				return
			}
			at = v.w.At("list_head", at).Member("next").Uint()
		}
		v.w.fail("a list of more than %d", maxList)
	}
}

// member finds a member of a structure by name, in anonymous members too.
func (w *Walk) member(t btf.Type, name string) memberPlace {
	if t == nil {
		return memberPlace{}
	}
	key := memberName{t, name}
	m, known := w.members[key]
	if !known {
		m = member(t, name)
		w.members[key] = m
	}
	return m
}

func member(t btf.Type, name string) memberPlace {
	var members []btf.Member
	switch s := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	}
	for _, m := range members {
		if m.Name == name {
			return memberPlace{m.Type, m.Offset.Bytes(), uint32(m.Offset) % 8, uint32(m.BitfieldSize), true}
		}
		if m.Name == "" {
			if inner := member(m.Type, name); inner.found {
				inner.at += m.Offset.Bytes()
				return inner
			}
		}
	}
	return memberPlace{}
}
