package remote

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Batch is a list of system calls under construction in a slot.
//
// Its methods never fail by themselves: the first mistake (a slot that is too small, a result used twice) is kept and
// returned when the batch is run.
type Batch struct {
	Mode Mode
	Spin uint32 // how often the stub looks for the next batch before it sleeps

	page  *Page
	about string // begins the names of calls
	what  []string
	floor int // data lies above
	used  map[int]bool
	err   error
}

// Result is the result of an earlier call of the same batch, to be used as an argument, once.
type Result struct{ index int }

// Address is an address in the stub.
type Address uint64

// Batch begins a new batch in the slot. The stub must be idle or not born.
func (p *Page) Batch() *Batch {
	clear(p.mem[:headerSize])
	return &Batch{page: p, floor: len(p.mem), used: make(map[int]bool)}
}

// Draft begins a batch that no stub is to run, as if it were in a slot of a size.
func Draft(size int) *Batch { return (&Page{mem: make([]byte, size)}).Batch() }

// CallError is a system call that failed inside.
type CallError struct {
	What  string // what the call was for
	Index int    // its place in the batch
	Errno unix.Errno
}

func (e *CallError) Error() string { return e.What + ": " + e.Errno.Error() }
func (e *CallError) Unwrap() error { return e.Errno }

// Call adds a system call. what says what it does, for the error message.
// An argument is an integer of any type, an [Address] or a [Result].
func (b *Batch) Call(what string, nr int, args ...any) Result {
	return b.add(what, nr, 0, args)
}

// Try adds a system call that may fail.
func (b *Batch) Try(what string, nr int, args ...any) Result {
	return b.add(what, nr, ignoreErrors, args)
}

func (b *Batch) add(what string, nr int, store uint32, args []any) Result {
	index := len(b.what)
	at := headerSize + index*entrySize
	if at+entrySize > b.floor {
		b.fail("batch of more than %d calls does not fit in its slot", index)
		return Result{index}
	}
	entry := b.page.mem[at : at+entrySize]
	clear(entry)
	binary.LittleEndian.PutUint32(entry[entryCall:], uint32(nr))
	binary.LittleEndian.PutUint32(entry[entryStore:], store)
	binary.LittleEndian.PutUint64(entry[entryResult:], ^uint64(unix.ECANCELED)+1)
	for i, arg := range args {
		b.argument(at+entryArgs+8*i, arg)
	}
	b.what = append(b.what, b.about+what)
	return Result{index}
}

func (b *Batch) argument(at int, arg any) {
	var v uint64
	switch a := arg.(type) {
	case int:
		v = uint64(a)
	case int32:
		v = uint64(a)
	case int64:
		v = uint64(a)
	case uint32:
		v = uint64(a)
	case uint64:
		v = a
	case uintptr:
		v = uint64(a)
	case unix.Signal:
		v = uint64(a)
	case Address:
		v = uint64(a)
	case Result:
		b.Store(a, at)
	default:
		b.fail("argument of type %T", arg)
	}
	binary.LittleEndian.PutUint64(b.page.mem[at:], v)
}

// Store lets the result of an earlier call be written to an offset of the slot too.
func (b *Batch) Store(r Result, offset int) {
	if b.used[r.index] {
		b.fail("result of %q used twice", b.what[r.index])
		return
	}
	b.used[r.index] = true
	at := headerSize + r.index*entrySize + entryStore
	flags := binary.LittleEndian.Uint32(b.page.mem[at:])
	binary.LittleEndian.PutUint32(b.page.mem[at:], flags|uint32(offset))
}

// StoreAt lets the result of an earlier call be written (8 bytes) to an address got from [Batch.Data] or [Batch.Space].
func (b *Batch) StoreAt(r Result, a Address) { b.Store(r, int(uint64(a)-b.page.address)) }

// Data puts bytes into the slot, 16-byte aligned, and returns their address in the stub.
func (b *Batch) Data(data []byte) Address {
	a := b.Space(len(data))
	if b.err == nil {
		copy(b.page.mem[b.floor:], data)
	}
	return a
}

// Space reserves n bytes of zeros in the slot and returns their address in the stub.
func (b *Batch) Space(n int) Address {
	floor := (b.floor - n) &^ 15
	if n < 0 || floor < headerSize+(len(b.what)+1)*entrySize {
		b.fail("%d bytes of data do not fit in the slot", n)
		return 0
	}
	b.floor = floor
	clear(b.page.mem[floor : floor+n])
	return Address(b.page.address + uint64(floor))
}

// String puts a NUL-terminated string into the slot.
func (b *Batch) String(s string) Address { return b.Data(append([]byte(s), 0)) }

// Words puts 64-bit words into the slot.
func (b *Batch) Words(words ...uint64) Address {
	data := make([]byte, 0, 8*len(words))
	for _, w := range words {
		data = binary.LittleEndian.AppendUint64(data, w)
	}
	return b.Data(data)
}

// Strings puts a NULL-terminated array of strings into the slot, as execve(2) takes it.
func (b *Batch) Strings(list []string) Address {
	words := make([]uint64, 0, len(list)+1)
	for _, s := range list {
		words = append(words, uint64(b.String(s)))
	}
	return b.Words(append(words, 0)...)
}

// Room tells how many bytes are free in the slot; an entry takes 64.
func (b *Batch) Room() int { return b.floor - headerSize - len(b.what)*entrySize }

// Len is the number of calls.
func (b *Batch) Len() int { return len(b.what) }

// Bytes returns n bytes at an address of the slot: what the stub's calls wrote there. They are valid until the next batch.
func (b *Batch) Bytes(a Address, n int) []byte {
	at := int(uint64(a) - b.page.address)
	return b.page.mem[at : at+n]
}

// Value returns what a call returned, and its error.
func (b *Batch) Value(r Result) (int64, error) {
	v := int64(binary.LittleEndian.Uint64(b.page.mem[headerSize+r.index*entrySize+entryResult:]))
	if v < 0 && v >= -4095 {
		return v, &CallError{What: b.what[r.index], Index: r.index, Errno: unix.Errno(-v)}
	}
	return v, nil
}

// Reached tells whether a batch that was started has come to a call: all before it have been made.
func (b *Batch) Reached(r Result) bool {
	if r.index == 0 {
		return true
	}
	at := headerSize + (r.index-1)*entrySize + entryResult
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&b.page.mem[at]))) != ^uint64(unix.ECANCELED)+1
}

// Err returns the error of the call that ended the batch, or a mistake in its construction.
func (b *Batch) Err() error {
	if b.err != nil {
		return b.err
	}
	if at := b.failed(); at != nil {
		return at
	}
	return nil
}

// failed returns the call that ended the batch, nil if all ran.
func (b *Batch) failed() error {
	left := int(binary.LittleEndian.Uint32(b.page.mem[offLeft:]))
	if left == 0 || left > len(b.what) {
		return nil
	}
	_, err := b.Value(Result{len(b.what) - left})
	return err
}

// running names the call at which a batch that did not end stands.
func (b *Batch) running() string {
	for i := range b.what {
		if v, _ := b.Value(Result{i}); v == -int64(unix.ECANCELED) {
			return b.what[i]
		}
	}
	return "batch"
}

func (b *Batch) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(b.about+format, args...)
	}
}
