package remote

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
)

// Script is a sequence of calls that need not fit in one batch: it is run whenever the slot gets full.
// The first error ends it and stays.
type Script struct {
	ctx   context.Context
	page  *Page
	pidfd int
	batch *Batch
	about string
	err   error
}

// Script begins a script for an idle stub.
func (p *Page) Script(ctx context.Context, pidfd int) *Script {
	return &Script{ctx: ctx, page: p, pidfd: pidfd, batch: p.Batch()}
}

// Room returns a batch in which at least n bytes are free: calls, at 64 bytes each, and their data.
// Results and addresses of an earlier one are not valid in it.
func (s *Script) Room(n int) *Batch {
	if s.batch.Room() < n {
		s.flush()
	}
	return s.batch
}

// About says what the calls from here on are for: their errors begin with it.
func (s *Script) About(format string, args ...any) {
	s.about = fmt.Sprintf(format, args...) + ": "
	s.batch.about = s.about
}

// Call adds a call without data.
func (s *Script) Call(what string, nr int, args ...any) { s.Room(2*entrySize).Call(what, nr, args...) }

func (s *Script) flush() {
	if s.err == nil && s.batch.Len() > 0 {
		s.err = s.batch.Run(s.ctx, s.pidfd)
	}
	s.batch = s.page.Batch()
	s.batch.about = s.about
}

// Run runs what is left and returns the first error of the whole script.
func (s *Script) Run() error {
	s.flush()
	return s.err
}

// Unmap adds the calls that unmap everything but the arena and what is kept: ascending ranges, outside of the arena.
func (s *Script) Unmap(a *Arena, kept []dump.Range) {
	end := a.base + uint64(len(a.mem))
	after, _ := slices.BinarySearchFunc(kept, a.base, func(r dump.Range, base uint64) int { return cmp.Compare(r.Start, base) })
	at := uint64(0)
	for _, r := range slices.Insert(slices.Clone(kept), after, dump.Range{Start: a.base, End: end}) {
		if at < r.Start {
			s.Call(fmt.Sprintf("unmap %#x-%#x", at, r.Start), unix.SYS_MUNMAP, at, r.Start-at)
		}
		at = r.End
	}
	if at < TaskSize {
		s.Call(fmt.Sprintf("unmap from %#x on", at), unix.SYS_MUNMAP, at, TaskSize-at)
	}
}
