package remote

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

// Arena is the memory that we share with our stubs: the stub's code, then slots of equal size.
// It is sparse: a slot costs what is written to it.
type Arena struct {
	file *os.File
	mem  []byte
	base uint64
	slot int
}

// NewArena makes an arena of the given number of slots for the address base in the stubs.
// slotSize is a multiple of the page size; a batch with its data fits in one slot.
// The caller closes it.
func NewArena(base uint64, slots, slotSize int) (*Arena, error) {
	if slotSize%pageSize != 0 || base%pageSize != 0 {
		return nil, fmt.Errorf("arena at %#x with slots of %d bytes: not page aligned", base, slotSize)
	}
	file, err := memfd("vps-arena")
	if err != nil {
		return nil, err
	}
	size := pageSize + slots*slotSize
	if err := file.Truncate(int64(size)); err != nil {
		file.Close()
		return nil, fmt.Errorf("arena: %w", err)
	}
	a, err := mapSealed(file, base, size, slotSize)
	if err != nil {
		file.Close()
		return nil, err
	}
	copy(a.mem, stubCode())
	return a, nil
}

// OpenArena maps an arena again that was made by an earlier process of ours, whose memfd is file.
func OpenArena(file *os.File, base uint64, slotSize int) (*Arena, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("arena: %w", err)
	}
	return mapSealed(file, base, int(info.Size()), slotSize)
}

// mapSealed maps the arena in a memfd. A stub must not be able to take our memory away.
func mapSealed(file *os.File, base uint64, size, slotSize int) (*Arena, error) {
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return nil, fmt.Errorf("seal arena: %w", err)
	}
	return mapArena(file, base, size, slotSize)
}

func mapArena(file *os.File, base uint64, size, slotSize int) (*Arena, error) {
	mem, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map arena: %w", err)
	}
	return &Arena{file: file, mem: mem, base: base, slot: slotSize}, nil
}

// memfd makes an executable memfd; kernels before 6.3 know no MFD_EXEC and need none.
func memfd(name string) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Close unmaps the arena here; stubs keep theirs.
func (a *Arena) Close() error {
	err := unix.Munmap(a.mem)
	a.mem = nil
	if cerr := a.file.Close(); err == nil {
		err = cerr
	}
	return err
}

// File is the arena's memfd; it belongs to the arena.
func (a *Arena) File() *os.File { return a.file }

// Base is the arena's address in its stubs, and Size its length.
func (a *Arena) Base() uint64 { return a.base }

// Size is the arena's length in bytes.
func (a *Arena) Size() int { return len(a.mem) }

// Slots is the number of slots.
func (a *Arena) Slots() int { return (len(a.mem) - pageSize) / a.slot }

// Page returns slot i.
func (a *Arena) Page(i int) *Page {
	start := pageSize + i*a.slot
	return &Page{mem: a.mem[start : start+a.slot : start+a.slot], address: a.base + uint64(start)}
}
