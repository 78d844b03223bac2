package object

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vps/remote"
)

// Maker is a stub in the instance, root there, in whose descriptor table a restore makes its kernel objects: what
// carries its opener's credentials, pid or mount is made by the maker's own system calls; the rest is made by us and given
// to it. Every process of the instance is then born with a copy of the table.
type Maker struct {
	Page  *remote.Page
	PidFD int // of the maker, as its host sees it
	// Socket is our end of a Unix socket whose other end is the maker's descriptor SocketFD.
	Socket   *os.File
	SocketFD int
	// Child is a free slot, for children of the maker that live for a moment; nil: it makes none.
	Child *remote.Page
}

// Run lets the maker run the batch that build writes.
func (m *Maker) Run(ctx context.Context, build func(b *remote.Batch)) error {
	b := m.Page.Batch()
	build(b)
	return b.Run(ctx, m.PidFD)
}

// Take duplicates a descriptor of the maker into our process: the same open file description. The caller closes it.
func (m *Maker) Take(fd int) (*os.File, error) {
	n, err := unix.PidfdGetfd(m.PidFD, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("take descriptor %d of the maker: %w", fd, err)
	}
	return os.NewFile(uintptr(n), fmt.Sprintf("maker:%d", fd)), nil
}

// Give duplicates a file of ours to the given descriptor of the maker, which is free.
func (m *Maker) Give(ctx context.Context, f *os.File, fd int) error {
	if err := unix.Sendmsg(int(m.Socket.Fd()), []byte{0}, unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		return fmt.Errorf("give %s to the maker: %w", f.Name(), err)
	}
	var number func() int
	if err := m.Run(ctx, func(b *remote.Batch) { number = b.Receive(m.SocketFD) }); err != nil {
		return err
	}
	got := number()
	return m.Run(ctx, func(b *remote.Batch) {
		b.Call("dup3", unix.SYS_DUP3, got, fd, 0)
		b.Call("close", unix.SYS_CLOSE, got)
	})
}

// RunOn lets the maker run a batch on data that is in its memory for as long as that takes: size bytes at the address that
// build is given, which returns them. The calls may write there.
func (m *Maker) RunOn(ctx context.Context, size int, build func(b *remote.Batch, at remote.Address) []byte) error {
	fd, err := unix.MemfdCreate("maker", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	if err := unix.Sendmsg(int(m.Socket.Fd()), []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("give a memfd to the maker: %w", err)
	}
	var number func() int
	if err := m.Run(ctx, func(b *remote.Batch) { number = b.Receive(m.SocketFD) }); err != nil {
		return err
	}
	got := number()
	var mapping *remote.Batch
	var mapped remote.Result
	err = m.Run(ctx, func(b *remote.Batch) {
		mapping = b
		mapped = b.Call("map a memfd", unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, got, 0)
		b.Call("close", unix.SYS_CLOSE, got)
	})
	if err != nil {
		return err
	}
	at, err := mapping.Value(mapped)
	if err != nil {
		return err
	}
	var written error
	err = m.Run(ctx, func(b *remote.Batch) { _, written = f.WriteAt(build(b, remote.Address(at)), 0) })
	unmapped := m.Run(ctx, func(b *remote.Batch) { b.Call("unmap a memfd", unix.SYS_MUNMAP, at, size) })
	return errors.Join(written, err, unmapped)
}
