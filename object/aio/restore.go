package aio

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// Restore makes the contexts of an address space, in which everything else is mapped, in its stub. A ring comes to where it was by
// mremap(2), and gets its places by requests that are done at once.
func Restore(s *remote.Script, mm *dump.Mm) error {
	for _, m := range mm.GetMappings() {
		if m.GetKind() != dump.Mapping_AIO {
			continue
		}
		r := &ring{s: s, m: m, AioRing: m.GetAio()}
		if err := r.restore(); err != nil {
			return fmt.Errorf("aio ring at %#x: %w", m.GetStart(), err)
		}
	}
	return nil
}

// ring is a ring that is being restored.
type ring struct {
	*dump.AioRing
	s    *remote.Script
	m    *dump.Mapping
	file int // an empty file of the stub's
}

func (r *ring) restore() error {
	if err := r.setup(); err != nil {
		return err
	}
	// Once to the head and fetched; and on from there to the tail.
	if err := r.submit(r.GetHead(), true); err != nil {
		return err
	}
	if err := r.submit(count(r.AioRing), false); err != nil {
		return err
	}
	r.fill()
	if got, err := r.header(r.m.GetStart()); err != nil {
		return err
	} else if got.GetHead() != r.GetHead() || got.GetTail() != r.GetTail() {
		return fmt.Errorf("events from %d to %d, not from %d to %d", got.GetHead(), got.GetTail(), r.GetHead(), r.GetTail())
	}
	r.s.Call("close", unix.SYS_CLOSE, r.file)
	return r.s.Run()
}

// setup makes the context, with its ring where it was.
func (r *ring) setup() error {
	start, size := r.m.GetStart(), r.m.GetEnd()-r.m.GetStart()
	b := r.s.Room(1024)
	b.Call("keep the place of an aio ring", unix.SYS_MMAP, start, size, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED_NOREPLACE, -1, 0)
	made := b.Call("memfd_create", unix.SYS_MEMFD_CREATE, b.String(""), unix.MFD_CLOEXEC)
	context := b.Words(0)
	// The kernel makes twice as many places, 2 more, and what is left of the last page (fs/aio.c, ioctx_alloc).
	b.Call("io_setup", unix.SYS_IO_SETUP, (r.GetNr()-2)/2, context)
	if err := r.s.Run(); err != nil {
		return err
	}
	fd, err := b.Value(made)
	if err != nil {
		return err
	}
	r.file = int(fd)
	at := binary.LittleEndian.Uint64(b.Bytes(context, 8))
	if got, err := r.header(at); err != nil {
		return err
	} else if got.GetNr() != r.GetNr() {
		return fmt.Errorf("%d places, this host makes %d: %w", r.GetNr(), got.GetNr(), object.ErrUnsupported)
	}
	r.s.Call("move the aio ring", unix.SYS_MREMAP, at, size, size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, start)
	return nil
}

// header reads the header of the ring at an address: the stub writes it to the file, and reads it to where we see it.
func (r *ring) header(at uint64) (*dump.AioRing, error) {
	b := r.s.Room(1024)
	seen := b.Space(headerSize)
	b.Call("write header", unix.SYS_PWRITE64, r.file, at, headerSize, 0)
	b.Call("read header", unix.SYS_PREAD64, r.file, seen, headerSize, 0)
	b.Call("empty the file", unix.SYS_FTRUNCATE, r.file, 0)
	if err := r.s.Run(); err != nil {
		return nil, err
	}
	got, ok := header(b.Bytes(seen, headerSize))
	if !ok {
		return nil, fmt.Errorf("the ring looks strange: %w", object.ErrUnsupported)
	}
	return got, nil
}

// submit makes requests, to read nothing, which are done at once, and may fetch their events. Their places are filled one
// after the other.
func (r *ring) submit(n uint32, fetch bool) error {
	const piece = 32
	for n > 0 {
		k := min(n, piece)
		n -= k
		// struct iocb of include/uapi/linux/aio_abi.h; its opcode 0 is IOCB_CMD_PREAD.
		b := r.s.Room(4096)
		var iocb [64]byte
		binary.LittleEndian.PutUint32(iocb[20:], uint32(r.file))
		at := uint64(b.Data(iocb[:]))
		var all [piece]uint64
		for i := range all {
			all[i] = at
		}
		submitted := b.Call("io_submit", unix.SYS_IO_SUBMIT, r.m.GetStart(), k, b.Words(all[:k]...))
		if fetch {
			b.Call("io_getevents", unix.SYS_IO_GETEVENTS, r.m.GetStart(), k, k, b.Space(piece*eventSize), 0)
		}
		if err := r.s.Run(); err != nil {
			return err
		}
		if got, err := b.Value(submitted); err != nil || got != int64(k) {
			return fmt.Errorf("%d of %d requests submitted, %w", got, k, err)
		}
	}
	return nil
}

// fill puts the events that nobody has fetched into their places.
func (r *ring) fill() {
	rest := r.GetEvents()
	for place := r.GetHead(); len(rest) > 0; place %= r.GetNr() {
		n := min(len(rest), int(r.GetNr()-place)*eventSize, 2048)
		b := r.s.Room(n + 1024)
		b.Call("write events", unix.SYS_PWRITE64, r.file, b.Data(rest[:n]), n, 0)
		b.Call("read events", unix.SYS_PREAD64, r.file, r.m.GetStart()+headerSize+uint64(place)*eventSize, n, 0)
		b.Call("empty the file", unix.SYS_FTRUNCATE, r.file, 0)
		rest = rest[n:]
		place += uint32(n / eventSize)
	}
}
