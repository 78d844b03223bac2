package pager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vps/dump"
)

// stage is memory in which pages wait for the writer: copying into it is all that a frozen instance waits for.
type stage struct {
	mu    sync.Mutex
	mem   []byte // the whole mapping
	free  []byte // what is left of it
	parts []part // in the order in which they are to be written
}

// part is pages of one object.
type part struct {
	key    dump.Key
	ranges []dump.Range
	data   []byte
}

// maxStage is the most that a stage holds.
const maxStage = 2 << 30

// available returns how many bytes the machine can give away (MemAvailable of /proc/meminfo, proc_meminfo(5)).
func available() (uint64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib uint64
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}

// newStage maps a stage of about size bytes, with all its pages there already.
func newStage(size uint64) (*stage, error) {
	const huge = 2 << 20
	size = max(size+huge-1, huge) &^ (huge - 1)
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	// Both only make it faster; the second needs Linux 5.14.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE)
	return &stage{mem: mem, free: mem}, nil
}

// take gives n bytes away, nil if there are not so many.
func (s *stage) take(n uint64) []byte {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > uint64(len(s.free)) {
		return nil
	}
	data := s.free[:n:n]
	s.free = s.free[n:]
	return data
}

func (s *stage) add(p part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = append(s.parts, p)
}

// write writes the parts.
func (s *stage) write(ctx context.Context, w *dump.Writer) error {
	if s == nil {
		return nil
	}
	for _, p := range s.parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := w.WritePages(p.key, p.ranges, func(buf []byte, _ []dump.Range) error {
			copy(buf, p.data) // a part fits in a frame
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) close() {
	// What fails to be unmapped stays until the process ends.
	_ = unix.Munmap(s.mem)
}
