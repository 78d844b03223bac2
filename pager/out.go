package pager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// Dump writes the pages in ranges of a stopped process to w, as pages of the Mm record id.
func Dump(ctx context.Context, w *dump.Writer, id uint64, pid int, ranges []dump.Range) error {
	key := dump.Key{Type: dump.Type_TYPE_MM, ID: id}
	var mem *os.File
	defer func() {
		if mem != nil {
			mem.Close()
		}
	}()
	return w.WritePages(key, ranges, func(buf []byte, ranges []dump.Range) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, r := range ranges {
			part := buf[:r.Len()]
			buf = buf[r.Len():]
			err := remote.ReadMemory(pid, r.Start, part)
			if errors.Is(err, unix.EFAULT) {
				// A range that the program itself may not read.
				if mem == nil {
					if mem, err = os.Open(fmt.Sprintf("/proc/%d/mem", pid)); err != nil {
						return err
					}
				}
				_, err = mem.ReadAt(part, int64(r.Start))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// DumpFile writes the content of r, size bytes, as pages of the Memory record id. If r is a file, its holes are passed over.
func DumpFile(ctx context.Context, w *dump.Writer, id uint64, r io.ReaderAt, size int64) error {
	ranges, err := dataRanges(r, size)
	if err != nil {
		return err
	}
	key := dump.Key{Type: dump.Type_TYPE_MEMORY, ID: id}
	return w.WritePages(key, ranges, func(buf []byte, ranges []dump.Range) error {
		if err := ctx.Err(); err != nil {
			return err
		}
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
