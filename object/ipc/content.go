package ipc

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

func wholePages(size uint64) uint64 { return (size + pageSize - 1) &^ (pageSize - 1) }

func address(memory []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(memory)))) }

// openMapped opens the file that a process has mapped at an address, where it ends with a page.
func openMapped(pid int, at, size uint64, flags int) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, at, at+wholePages(size)), flags, 0)
}

// content is the pages of a segment. Its file ends where the segment does, but those who attach it see the whole last page.
type content struct {
	*os.File
	floor int64
	tail  []byte // the last page, nil if it is a whole one
}

// openContent makes the content of a segment of some size out of its file, which stays the caller's.
func openContent(f *os.File, size uint64) (*content, error) {
	c := &content{File: f, floor: int64(size) &^ (pageSize - 1)}
	if c.floor == int64(size) {
		return c, nil
	}
	prot := unix.PROT_READ
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err == nil && flags&unix.O_ACCMODE == unix.O_RDWR {
		prot |= unix.PROT_WRITE
	}
	var err error
	if c.tail, err = unix.Mmap(int(f.Fd()), c.floor, pageSize, prot, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the last page: %w", err)
	}
	return c, nil
}

func (c *content) close() {
	if c.tail != nil {
		unix.Munmap(c.tail)
	}
}

// ReadAt reads whole pages.
func (c *content) ReadAt(p []byte, at int64) (int, error) {
	n := min(int64(len(p)), max(0, c.floor-at))
	if n > 0 {
		if got, err := c.File.ReadAt(p[:n], at); err != nil {
			return got, err
		}
	}
	if rest := p[n:]; len(rest) > 0 && c.tail != nil {
		n += int64(copy(rest, c.tail[at+n-c.floor:]))
	}
	return int(n), nil
}

// WriteAt writes whole pages.
func (c *content) WriteAt(p []byte, at int64) (int, error) {
	n := min(int64(len(p)), max(0, c.floor-at))
	if n > 0 {
		if got, err := c.File.WriteAt(p[:n], at); err != nil {
			return got, err
		}
	}
	if rest := p[n:]; len(rest) > 0 && c.tail != nil {
		n += int64(copy(c.tail[at+n-c.floor:], rest))
	}
	return int(n), nil
}
