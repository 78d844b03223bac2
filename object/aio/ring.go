// Package aio has the contexts of asynchronous I/O, io_setup(2): their rings of events in the memory of processes.
//
// What is under way in a context lies in the kernel alone, and cannot be put back: an instance is dumped when there is nothing.
package aio

import (
	"encoding/binary"
	"fmt"
	"os"

	"vps/dump"
	"vps/object"
)

// struct aio_ring of fs/aio.c, and struct io_event of include/uapi/linux/aio_abi.h.
const (
	headerSize = 32
	eventSize  = 32
	magic      = 0xa10a10a1
	headAt     = 8
)

// header reads the numbers of a ring's header.
func header(b []byte) (r *dump.AioRing, ok bool) {
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	r = &dump.AioRing{Nr: word(1), Head: word(2), Tail: word(3)}
	return r, word(4) == magic && word(7) == headerSize
}

// count is how many events wait in a ring.
func count(r *dump.AioRing) uint32 { return (r.GetTail() + r.GetNr() - r.GetHead()) % r.GetNr() }

// Check looks at the ring of a mapping: its size, its places and its events fit.
func Check(m *dump.Mapping) error {
	r := m.GetAio()
	size := m.GetEnd() - m.GetStart()
	if r.GetNr() == 0 || headerSize+uint64(r.GetNr())*eventSize != size || r.GetHead() >= r.GetNr() || r.GetTail() >= r.GetNr() ||
		uint64(len(r.GetEvents())) != uint64(count(r))*eventSize {
		return fmt.Errorf("an aio ring of %d places, from %d to %d, in %d bytes: not possible", r.GetNr(), r.GetHead(), r.GetTail(), size)
	}
	return nil
}

// read reads the ring that a process has mapped.
func read(p object.Proc, m *dump.Mapping) error {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.Task()))
	if err != nil {
		return err
	}
	defer mem.Close()
	buf := make([]byte, headerSize)
	if _, err := mem.ReadAt(buf, int64(m.GetStart())); err != nil {
		return fmt.Errorf("read aio ring: %w", err)
	}
	r, ok := header(buf)
	if !ok || headerSize+uint64(r.GetNr())*eventSize != m.GetEnd()-m.GetStart() || r.GetTail() >= r.GetNr() {
		return &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "a part of an aio ring, or one that the process has spoiled"}
	}
	r.Head %= r.GetNr() // the process's own; so the kernel takes it
	r.Events = make([]byte, count(r)*eventSize)
	rest := r.Events
	for at := r.GetHead(); len(rest) > 0; at = 0 {
		n := min(len(rest), int(r.GetNr()-at)*eventSize)
		if _, err := mem.ReadAt(rest[:n], int64(m.GetStart())+headerSize+int64(at)*eventSize); err != nil {
			return fmt.Errorf("read aio ring: %w", err)
		}
		rest = rest[n:]
	}
	m.Aio = r
	return nil
}
