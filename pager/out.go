package pager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// memory reads the memory of a process.
type memory struct {
	pid  int
	mu   sync.Mutex
	file *os.File
}

// read reads ranges, one after the other, into buf.
func (m *memory) read(buf []byte, ranges []dump.Range) error {
	n, err := remote.ReadRanges(m.pid, ranges, buf)
	if !errors.Is(err, unix.EFAULT) {
		return err
	}
	// There is a range that the program itself may not read.
	file, err := m.open()
	if err != nil {
		return err
	}
	for _, r := range ranges {
		part := buf[:r.Len()]
		buf = buf[len(part):]
		if n -= len(part); n >= 0 {
			continue
		}
		if _, err := file.ReadAt(part, int64(r.Start)); err != nil {
			return fmt.Errorf("read memory of process %d: %w", m.pid, err)
		}
	}
	return nil
}

func (m *memory) open() (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.file == nil {
		m.file, err = os.Open(fmt.Sprintf("/proc/%d/mem", m.pid))
	}
	return m.file, err
}

func (m *memory) close() {
	if m.file != nil {
		m.file.Close()
	}
}

// File copies the content of r, size bytes, of the Memory record id, which is written. If r is a file, its holes are passed over.
func (c *Copy) File(ctx context.Context, id uint64, r io.ReaderAt, size int64) error {
	ranges, err := dataRanges(r, size)
	if err != nil {
		return err
	}
	key := dump.Key{Type: dump.Type_TYPE_MEMORY, ID: id}
	read := func(buf []byte, ranges []dump.Range) error {
		for _, rg := range ranges {
			part := buf[:rg.Len()]
			buf = buf[rg.Len():]
			n, err := r.ReadAt(part, int64(rg.Start))
			if err != nil && err != io.EOF {
				return fmt.Errorf("read content at %#x: %w", rg.Start, err)
			}
			clear(part[n:])
		}
		return nil
	}
	return each(ctx, split(ranges, dump.MaxFrame), func(_ int, ranges []dump.Range) error {
		return c.copyPart(ctx, part{key: key, ranges: ranges}, read, nil)
	})
}

// dataRanges returns the parts of a file that are no holes (lseek(2), SEEK_DATA), in whole pages.
func dataRanges(r io.ReaderAt, size int64) ([]dump.Range, error) {
	end := (uint64(size) + pageSize - 1) &^ (pageSize - 1)
	f, ok := r.(*os.File)
	if !ok {
		if end == 0 {
			return nil, nil
		}
		return []dump.Range{{Start: 0, End: end}}, nil
	}
	// The offset belongs to the description, which the instance may share: seek in one of our own.
	own, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, err
	}
	defer own.Close()
	var list []dump.Range
	for at := int64(0); at < size; {
		data, err := own.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("find data: %w", err)
		}
		hole, err := own.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("find hole: %w", err)
		}
		first := uint64(data) &^ (pageSize - 1)
		last := min((uint64(hole)+pageSize-1)&^(pageSize-1), end)
		if n := len(list); n > 0 && list[n-1].End >= first {
			list[n-1].End = max(list[n-1].End, last)
		} else {
			list = append(list, dump.Range{Start: first, End: last})
		}
		at = hole
	}
	return list, nil
}
