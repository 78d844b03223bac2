package pager

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
)

const pageSize = 4096

// Scanner finds the pages of a process that have content of their own.
type Scanner struct {
	pagemap *os.File
	vec     []linux.PageRegion
	slow    bool // no PAGEMAP_SCAN: Linux before 6.7
}

// NewScanner opens the page map of a process, by its pid here. The caller closes it.
func NewScanner(pid int) (*Scanner, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	return &Scanner{pagemap: f, vec: make([]linux.PageRegion, 4096)}, nil
}

// Close closes the page map.
func (s *Scanner) Close() error { return s.pagemap.Close() }

// Private appends to list the ranges of pages in [start, end) that are the process's own: present or swapped,
// neither a file's nor the zero page.
func (s *Scanner) Private(list []dump.Range, start, end uint64) ([]dump.Range, error) {
	for !s.slow && start < end {
		arg := linux.PMScanArg{
			Start: start, End: end,
			CategoryInverted:  linux.PAGE_IS_FILE | linux.PAGE_IS_PFNZERO,
			CategoryMask:      linux.PAGE_IS_FILE | linux.PAGE_IS_PFNZERO,
			CategoryAnyofMask: linux.PAGE_IS_PRESENT | linux.PAGE_IS_SWAPPED,
			ReturnMask:        linux.PAGE_IS_PRESENT,
		}
		n, err := linux.PagemapScan(int(s.pagemap.Fd()), &arg, s.vec)
		if err == unix.ENOTTY {
			s.slow = true
			break
		}
		if err != nil {
			return nil, fmt.Errorf("scan pages %#x-%#x: %w", start, end, err)
		}
		for _, r := range s.vec[:n] {
			list = appendRange(list, r.Start, r.End)
		}
		start = arg.WalkEnd
	}
	if start < end {
		return s.read(list, start, end)
	}
	return list, nil
}

// Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageFile    = 1 << 61
)

// read does the work of a scan entry by entry. The zero page cannot be told from others here.
func (s *Scanner) read(list []dump.Range, start, end uint64) ([]dump.Range, error) {
	buf := make([]byte, 64<<10)
	for start < end {
		part := buf[:min(uint64(len(buf)), (end-start)/pageSize*8)]
		if _, err := s.pagemap.ReadAt(part, int64(start/pageSize*8)); err != nil && err != io.EOF {
			return nil, fmt.Errorf("read page map at %#x: %w", start, err)
		}
		for ; len(part) > 0; part = part[8:] {
			entry := binary.LittleEndian.Uint64(part)
			if entry&(pagePresent|pageSwapped) != 0 && entry&pageFile == 0 {
				list = appendRange(list, start, start+pageSize)
			}
			start += pageSize
		}
	}
	return list, nil
}

func appendRange(list []dump.Range, start, end uint64) []dump.Range {
	if n := len(list); n > 0 && list[n-1].End == start {
		list[n-1].End = end
		return list
	}
	return append(list, dump.Range{Start: start, End: end})
}
