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
	mem   [][]byte // mappings
	free  []byte   // what is left of the last one
	more  uint64   // how much may still be mapped
	parts []part   // in the order in which they are to be written
}

// part is pages of one object.
type part struct {
	key    dump.Key
	ranges []dump.Range
	data   []byte
}

const (
	maxStage = 2 << 30  // the most that a stage holds
	minStage = 16 << 20 // what it grows by at least

	maxReserve = 256 << 20 // the most that it has from the beginning
)

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

// newStage makes a stage of size bytes that may grow up to limit.
func newStage(size, limit uint64) (*stage, error) {
	s := &stage{more: limit}
	if size == 0 {
		return s, nil
	}
	return s, s.grow(size)
}

// grow maps memory, with all its pages there already.
func (s *stage) grow(size uint64) error {
	const huge = 2 << 20
	size = min((size+huge-1)&^(huge-1), s.more)
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", size, err)
	}
	// Both only make it faster; the second needs Linux 5.14.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE)
	s.mem, s.free, s.more = append(s.mem, mem), mem, s.more-size
	return nil
}

// take gives n bytes away, nil if there is no room for so many.
func (s *stage) take(n uint64) []byte {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > uint64(len(s.free)) && (n > s.more || s.grow(max(n, minStage)) != nil) {
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
	for _, mem := range s.mem {
		// What fails to be unmapped stays until the process ends.
		_ = unix.Munmap(mem)
	}
}
