package lazy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
)

// piece is how much is put at once: who changes an address space meanwhile waits for it.
const piece = 256 << 10

// ErrNotFilled says that pages could be neither given nor poisoned.
var ErrNotFilled = errors.New("missing pages of the instance's memory can be neither given nor withheld")

// work reads frames and puts their pages where they belong.
func (f *Filler) work(ctx context.Context, urgentOnly bool) error {
	r := f.snapshot.NewFrameReader()
	for {
		request, ok := f.queue.take(urgentOnly)
		if !ok {
			return nil
		}
		err := f.load(ctx, r, request)
		f.queue.done(request.frame)
		if err != nil {
			return err
		}
	}
}

// load gives all who need a frame its pages.
func (f *Filler) load(ctx context.Context, r *dump.FrameReader, q request) error {
	var pages []byte
	var unreadable error
	for {
		f.mu.Lock()
		m := f.next(q)
		if m == nil {
			f.mu.Unlock()
			return nil
		}
		extents, changes := m.of(q.frame), m.changes
		f.mu.Unlock()
		if pages == nil && unreadable == nil && len(extents) > 0 {
			if pages, unreadable = r.Read(q.frame); unreadable != nil {
				f.warn(fmt.Errorf("frame %d of the snapshot: %w: who touches its pages gets SIGBUS", q.frame, unreadable))
			}
		}
		same, err := true, error(nil)
		for _, e := range first(extents, q.fault.address) {
			if same, err = f.put(ctx, m, changes, e, pages); err != nil {
				return err
			}
			if !same {
				break
			}
		}
		f.mu.Lock()
		if same && m.changes == changes && !m.gone {
			err = f.note(entry{entryFilled, m.number, [3]uint64{uint64(q.frame)}})
			f.got(q.frame, m)
		}
		f.checkComplete()
		f.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// next chooses who gets a frame, he who waits for it first; nil if nobody needs it any more. The caller holds mu.
func (f *Filler) next(q request) *memory {
	who := f.needs[q.frame]
	if who[q.fault.memory] {
		return q.fault.memory
	}
	for m := range who {
		return m
	}
	return nil
}

// first cuts extents into pieces, that with an address as the first one.
func first(extents []dump.Extent, address uint64) []dump.Extent {
	var list []dump.Extent
	for _, e := range extents {
		for e.Start < e.End {
			p := e
			p.End = min(e.End, e.Start+piece)
			list = append(list, p)
			if p.Start <= address && address < p.End {
				last := len(list) - 1
				list[0], list[last] = list[last], list[0]
			}
			e.Index += int(p.Len() / pageSize)
			e.Start = p.End
		}
	}
	return list
}

// put puts pages of a frame where a memory misses them; without pages it poisons that. False: the memory has changed, and they
// may belong elsewhere.
func (f *Filler) put(ctx context.Context, m *memory, changes int, e dump.Extent, frame []byte) (same bool, err error) {
	from := e.Index * pageSize
	if frame != nil && from+int(e.Len()) > len(frame) {
		return false, fmt.Errorf("frame %d has no page %d: %w", e.Frame, e.Index, ErrNotFilled)
	}
	for at, size := e.Start, e.Len(); at < e.End; {
		size = min(size, e.End-at)
		n := 0
		f.mu.RLock()
		switch {
		case m.gone || m.changes != changes:
			f.mu.RUnlock()
			return false, nil
		case frame == nil:
			n, err = linux.UffdPoison(m.fault, at, size)
		default:
			start := from + int(at-e.Start)
			n, err = linux.UffdCopy(m.fault, at, frame[start:start+int(size)])
		}
		f.mu.RUnlock()
		switch {
		case n > 0:
			at += uint64(n)
			size = 2 * uint64(n)
		case errors.Is(err, unix.EEXIST):
			at += pageSize // it has come to be already
		case errors.Is(err, unix.ENOENT) && size > pageSize:
			size = size / 2 &^ (pageSize - 1) // it lies in several mappings by now
		case errors.Is(err, unix.ENOENT):
			at += pageSize // nothing, or something else, is mapped there by now
		case errors.Is(err, unix.ESRCH):
			return false, f.end(m)
		case errors.Is(err, unix.EAGAIN):
			// The kernel waits until somebody reads of a change; that will be soon.
			pause(ctx, 50*time.Microsecond)
		case errors.Is(err, unix.ENOMEM):
			// The instance is at its limit. The kernel kills somebody there.
			pause(ctx, 10*time.Millisecond)
		default:
			return false, fmt.Errorf("put pages at %#x: %w: %w", at, err, ErrNotFilled)
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	return true, nil
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// end forgets a memory whose process is gone.
func (f *Filler) end(m *memory) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.gone {
		return nil
	}
	if err := f.note(entry{what: entryGone, number: m.number}); err != nil {
		return err
	}
	f.drop(m.number)
	f.checkComplete()
	b := f.keeper.Page.Batch()
	b.Try("close userfaultfd", unix.SYS_CLOSE, m.number)
	return f.keeper.run(b)
}
