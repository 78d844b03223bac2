package pager

import (
	"encoding/binary"
	"errors"
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
	entries []byte
	slow    bool // no PAGEMAP_SCAN: Linux before 6.7
	guards  bool // it can tell guard pages: Linux 6.15
}

// NewScanner opens the page map of a process, by its pid here. The caller closes it.
func NewScanner(pid int) (*Scanner, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	return &Scanner{pagemap: f, vec: make([]linux.PageRegion, 1024), guards: true}, nil
}

// Close closes the page map.
func (s *Scanner) Close() error { return s.pagemap.Close() }

// Private appends to list the ranges of pages in [start, end) that are the process's own: present or swapped,
// neither a file's nor the zero page.
func (s *Scanner) Private(list []dump.Range, start, end uint64) ([]dump.Range, error) {
	err := s.scan(start, end, linux.PMScanArg{}, func(r linux.PageRegion) { list = appendRange(list, r.Start, r.End) })
	if errors.Is(err, errors.ErrUnsupported) {
		return s.read(list, start, end)
	}
	return list, err
}

// Guards appends to list the guard regions in [start, end): pages that must not be touched, MADV_GUARD_INSTALL of madvise(2). Kernels
// before 6.15 have none, or cannot tell.
func (s *Scanner) Guards(list []dump.Range, start, end uint64) ([]dump.Range, error) {
	for s.guards && !s.slow && start < end {
		call := linux.PMScanArg{Start: start, End: end, CategoryMask: linux.PAGE_IS_GUARD, ReturnMask: linux.PAGE_IS_GUARD}
		n, err := linux.PagemapScan(int(s.pagemap.Fd()), &call, s.vec)
		switch {
		case err == unix.EINVAL:
			s.guards = false
			return list, nil
		case err == unix.ENOTTY:
			s.slow = true
			return list, nil
		case err != nil:
			return list, fmt.Errorf("scan pages %#x-%#x for guards: %w", start, end, err)
		}
		for _, r := range s.vec[:n] {
			list = appendRange(list, r.Start, r.End)
		}
		if n < len(s.vec) {
			return list, nil
		}
		start = s.vec[n-1].End
	}
	return list, nil
}

// scan finds the pages in [start, end) that are the process's own, and guards if these are to be returned. arg adds flags, what else
// is asked of the pages, and what is to be returned of them.
func (s *Scanner) scan(start, end uint64, arg linux.PMScanArg, found func(linux.PageRegion)) error {
	if s.slow {
		return errors.ErrUnsupported
	}
	for start < end {
		call := arg
		call.Start, call.End = start, end
		no := uint64(linux.PAGE_IS_FILE | linux.PAGE_IS_PFNZERO)
		switch {
		case !s.guards:
			call.ReturnMask &^= linux.PAGE_IS_GUARD
		case arg.ReturnMask&linux.PAGE_IS_GUARD == 0:
			no |= linux.PAGE_IS_GUARD
		}
		call.CategoryInverted |= no
		call.CategoryMask |= no
		call.CategoryAnyofMask |= linux.PAGE_IS_PRESENT | linux.PAGE_IS_SWAPPED
		n, err := linux.PagemapScan(int(s.pagemap.Fd()), &call, s.vec)
		switch {
		case err == unix.EINVAL && s.guards:
			s.guards = false
			continue
		case err == unix.ENOTTY:
			s.slow = true
			return errors.ErrUnsupported
		case err != nil:
			return fmt.Errorf("scan pages %#x-%#x: %w", start, end, err)
		}
		for _, r := range s.vec[:n] {
			found(r)
		}
		// Not call.WalkEnd, which the kernel leaves at the end of a part of its walk.
		if n < len(s.vec) {
			return nil
		}
		start = s.vec[n-1].End
	}
	return nil
}

// written appends the pages that were written to since they were last protected, and protects them; with all set,
// every page of the process's own. Memory that no userfaultfd tracks is passed over.
func (s *Scanner) written(list []dump.Range, r dump.Range, all bool) ([]dump.Range, error) {
	arg := linux.PMScanArg{Flags: linux.PM_SCAN_WP_MATCHING}
	if !all {
		arg.CategoryMask = linux.PAGE_IS_WRITTEN
	}
	err := s.scan(r.Start, r.End, arg, func(r linux.PageRegion) { list = appendRange(list, r.Start, r.End) })
	return list, err
}

// Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const (
	pagePresent   = 1 << 63
	pageSwapped   = 1 << 62
	pageFile      = 1 << 61
	pageGuard     = 1 << 58
	pageExclusive = 1 << 56
	pageFrame     = 1<<55 - 1
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
			if entry&(pagePresent|pageSwapped) != 0 && entry&(pageFile|pageGuard) == 0 {
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
