package lazy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
)

// The log is a sequence of entries of the size of struct uffd_msg, little endian. We write which pages are missing; the keeper appends
// what it reads, behind a word from whom; we add what has been done.
//
//	0  u8   what it is
//	4  u32  number of the userfaultfd in the keeper
//	8  3 × u64
const (
	entrySize = 32

	entryExtent = 1 // start, end, frame << 32 | index (all ones: zeros)
	entryFrom   = 2 // the messages that follow are this one's
	entryFilled = 3 // frame: the memory has its pages
	entryGone   = 4 // the memory is gone; its number may become another one's
	// Others are struct uffd_msg: its event.
)

type entry struct {
	what   uint8
	number int
	args   [3]uint64
}

func (e entry) append(b []byte) []byte {
	b = append(b, e.what, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.number))
	for _, arg := range e.args {
		b = binary.LittleEndian.AppendUint64(b, arg)
	}
	return b
}

func parseEntry(b []byte) entry {
	e := entry{what: b[0], number: int(binary.LittleEndian.Uint32(b[4:]))}
	for i := range e.args {
		e.args[i] = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	return e
}

// WriteLog begins the log of memories that wait for pages.
func WriteLog(w io.Writer, memories []Memory) error {
	var b []byte
	for _, m := range memories {
		for _, e := range m.Extents {
			if e.Frame == dump.Zero {
				continue // a page that is nowhere is zero
			}
			place := uint64(e.Frame)<<32 | uint64(e.Index)
			b = entry{entryExtent, m.Fault, [3]uint64{e.Start, e.End, place}}.append(b)
		}
		// A memory with nothing to come is none.
	}
	_, err := w.Write(b)
	return err
}

// note appends entries of ours.
func (f *Filler) note(entries ...entry) error {
	var b []byte
	for _, e := range entries {
		b = e.append(b)
	}
	if _, err := f.log.Write(b); err != nil {
		return fmt.Errorf("log of missing pages: %w", err)
	}
	return nil
}

// readLog takes in what has been added to the log, and returns the faults among it. The caller holds mu.
func (f *Filler) readLog() ([]fault, error) {
	var faults []fault
	from := 0
	buf := make([]byte, 256*entrySize)
	for {
		n, err := f.log.ReadAt(buf, f.read)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("log of missing pages: %w", err)
		}
		if n < entrySize {
			return faults, nil
		}
		for b := buf[:n]; len(b) >= entrySize; b = b[entrySize:] {
			e := parseEntry(b)
			f.read += entrySize
			switch e.what {
			case entryFrom:
				from = e.number
			case entryExtent, entryFilled, entryGone:
				if err := f.recall(e); err != nil {
					return nil, err
				}
			case linux.UFFD_EVENT_PAGEFAULT:
				if m := f.memories[from]; m != nil {
					faults = append(faults, fault{m, e.args[1] &^ (pageSize - 1)})
				}
			default:
				if err := f.follow(from, e); err != nil {
					return nil, err
				}
			}
		}
	}
}

// recall takes in an entry of ours: at the beginning it tells what an earlier daemon knew. Then it is known already.
func (f *Filler) recall(e entry) error {
	m := f.memories[e.number]
	switch {
	case e.what == entryExtent:
		x := dump.Extent{Range: dump.Range{Start: e.args[0], End: e.args[1]}, Frame: int(e.args[2] >> 32), Index: int(uint32(e.args[2]))}
		if m == nil {
			m = newMemory(e.number)
			f.memories[e.number] = m
		}
		m.pages = append(m.pages, x)
		f.bytes[x.Frame] += x.Len()
		f.need(x.Frame, m)
	case m == nil:
	case e.what == entryFilled:
		f.got(int(e.args[0]), m)
	case e.what == entryGone:
		f.drop(e.number)
	}
	return nil
}

// follow takes in that a process has changed its address space.
func (f *Filler) follow(from int, e entry) error {
	m := f.memories[from]
	if m == nil {
		return nil
	}
	switch e.what {
	case linux.UFFD_EVENT_FORK:
		child := m.clone(int(uint32(e.args[0])))
		f.drop(child.number) // the kernel gave the number anew: the one who had it is gone
		f.memories[child.number] = child
		for frame, who := range f.needs {
			if who[m] {
				f.need(frame, child)
				f.forked = append(f.forked, frame)
			}
		}
	case linux.UFFD_EVENT_REMAP:
		m.move(e.args[0], e.args[1], e.args[2])
	case linux.UFFD_EVENT_REMOVE, linux.UFFD_EVENT_UNMAP:
		m.remove(dump.Range{Start: e.args[0], End: e.args[1]})
	default:
		return fmt.Errorf("userfaultfd %d tells of %#x: %w", from, e.what, unix.EPROTO)
	}
	return nil
}

func (f *Filler) need(frame int, m *memory) {
	if f.needs[frame] == nil {
		f.needs[frame] = make(map[*memory]bool)
	}
	f.needs[frame][m] = true
}

func (f *Filler) got(frame int, m *memory) {
	if delete(f.needs[frame], m); len(f.needs[frame]) == 0 {
		delete(f.needs, frame)
	}
}
