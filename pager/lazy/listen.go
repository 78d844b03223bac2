package lazy

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/linux"
	"vps/remote"
)

// listen waits for what the kernel has to tell, until ctx ends.
func (f *Filler) listen(ctx context.Context) error {
	events := make([]unix.EpollEvent, 128)
	if err := f.hear(nil); err != nil { // faults of the log
		return err
	}
	for ctx.Err() == nil {
		wait := -1
		if len(f.again) > 0 {
			wait = 1 // ms: the event that stands in the way wakes us, but for one that was read meanwhile
		}
		n, err := unix.EpollWait(f.poll, events, wait)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		var ready []int
		for _, e := range events[:max(0, n)] {
			if e.Fd >= 0 {
				ready = append(ready, int(e.Fd))
			}
		}
		if err := f.hear(ready); err != nil {
			return err
		}
	}
	return nil
}

// hear lets the keeper read userfaultfds, and does what follows from it.
func (f *Filler) hear(ready []int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.readAll(ready); err != nil {
		return err
	}
	faults, err := f.readLog()
	if err != nil {
		return err
	}
	if err := f.meet(); err != nil {
		return err
	}
	f.queue.add(f.forked)
	f.forked = nil
	f.checkComplete()
	faults = append(f.again, faults...)
	f.again = nil
	for _, w := range faults {
		if err := f.serve(w); err != nil {
			return err
		}
	}
	return nil
}

// messages is how many the keeper reads at a time from one userfaultfd, and readers how many of these.
const (
	messages = 16
	readers  = 64
)

// readAll lets the keeper append what userfaultfds have to tell to the log.
func (f *Filler) readAll(numbers []int) error {
	for len(numbers) > 0 {
		part := numbers[:min(len(numbers), readers)]
		numbers = numbers[len(part):]
		b := f.keeper.Page.Batch()
		var results [][2]remote.Result
		for _, number := range part {
			if f.memories[number] == nil {
				continue
			}
			buf := b.Space(messages * entrySize)
			from := b.Data(entry{what: entryFrom, number: number}.append(nil))
			iov := b.Words(uint64(from), entrySize, uint64(buf), 0)
			read := b.Try("read userfaultfd", unix.SYS_READ, number, buf, messages*entrySize)
			b.StoreAt(read, iov+24)
			results = append(results, [2]remote.Result{read, b.Try("write log", unix.SYS_WRITEV, f.keeper.Log, iov, 2)})
		}
		if err := f.keeper.run(b); err != nil {
			return err
		}
		for _, r := range results {
			n, err := b.Value(r[0])
			if err != nil {
				continue // nothing to tell after all; then writev had no valid length
			}
			if written, err := b.Value(r[1]); err != nil || written != n+entrySize {
				return fmt.Errorf("keeper: %d bytes of %d: %w: %w", written, n+entrySize, err, ErrNotFilled)
			}
		}
	}
	return nil
}

// serve sees to a fault. The caller holds mu.
func (f *Filler) serve(w fault) error {
	m := w.memory
	if m.gone {
		return nil
	}
	e, end, ok := m.find(w.address)
	switch {
	case ok && f.needs[e.Frame][m]:
		f.queue.hurry(request{e.Frame, w})
		return nil
	case ok:
		end = w.address + pageSize // it came to be meanwhile; or it was, and the kernel dropped it without a word
	}
	return f.zero(w, end)
}

// zeroes is how much becomes zero at once, where nothing is to come: that takes no memory.
const zeroes = 2 << 20

// zero resolves a fault at which nothing is to come until end.
func (f *Filler) zero(w fault, end uint64) error {
	size := min(end, (w.address+zeroes)&^(zeroes-1)) - w.address
	for {
		n, err := linux.UffdZero(w.memory.fault, w.address, size)
		switch {
		case n > 0:
			return nil
		case errors.Is(err, unix.EAGAIN):
			f.again = append(f.again, w)
			return nil
		case errors.Is(err, unix.ESRCH):
			return nil // a worker finds that out too
		case size > pageSize:
			size = pageSize // the mapping ends before
		case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOENT):
			return f.wake(w.memory, w.address) // to see for himself
		default:
			return fmt.Errorf("zero page at %#x: %w: %w", w.address, err, ErrNotFilled)
		}
	}
}

func (f *Filler) wake(m *memory, address uint64) error {
	if err := linux.UffdWake(m.fault, address, pageSize); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("wake who waits for %#x: %w", address, err)
	}
	return nil
}
