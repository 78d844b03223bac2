package object

import (
	"context"
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
