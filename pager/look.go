package pager

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
)

// looked is what is found in mappings of a process that does not run.
type looked struct {
	own    []dump.Range // the process's own pages
	clean  []dump.Range // those of them that were not written to since they were last protected
	guards []dump.Range // guard regions
}

// Look finds out what of an address space of a frozen instance has to be copied, which [Copy.Freeze] does, and returns the guard
// regions of its mappings.
func (c *Copy) Look(ctx context.Context, s *Space) (guards []dump.Range, err error) {
	sp := c.space(s)
	if s.Direct {
		sp.giveUp()
	}
	l, err := lookAt(ctx, s, sp.tracker != nil)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", s.PID, err)
	}
	sp.pid, sp.same = s.PID, nil
	sp.kept = intersect(l.clean, sp.sound)
	sp.need = subtract(l.own, sp.kept)
	sp.gone = subtract(sp.sent, l.own)
	c.looked = append(c.looked, sp)
	return l.guards, nil
}

// stretch is how much of a large address space is looked at in one go.
const stretch = 128 << 20

// lookAt looks at the mappings of a space; at stretches of them at the same time, if they are large.
func lookAt(ctx context.Context, s *Space, tracked bool) (*looked, error) {
	groups := [][]Mapping{nil}
	var size uint64
	for _, m := range s.Mappings {
		for at := m.Start; at < m.End; at += stretch {
			part := m
			part.Start, part.End = at, min(m.End, at+stretch)
			if size += part.Len(); size > stretch {
				groups, size = append(groups, nil), part.Len()
			}
			groups[len(groups)-1] = append(groups[len(groups)-1], part)
		}
	}
	found := make([]looked, len(groups))
	err := each(ctx, groups, func(i int, group []Mapping) error {
		scanner, err := NewScanner(s.PID)
		if err != nil {
			return err
		}
		defer scanner.Close()
		for _, m := range group {
			if err := scanner.look(&found[i], m.Range, tracked && m.Anonymous); err != nil {
				return err
			}
		}
		return nil
	})
	all := &looked{}
	for _, l := range found {
		all.own, all.clean = append(all.own, l.own...), append(all.clean, l.clean...)
		all.guards = append(all.guards, l.guards...)
	}
	return all, err
}

// look looks at a range. Where tracked is set, but no userfaultfd does it, nothing is clean.
func (s *Scanner) look(l *looked, r dump.Range, tracked bool) error {
	before := *l
	arg := linux.PMScanArg{ReturnMask: linux.PAGE_IS_WRITTEN | linux.PAGE_IS_GUARD}
	if tracked {
		arg.Flags = linux.PM_SCAN_CHECK_WPASYNC
	}
	err := s.scan(r.Start, r.End, arg, func(found linux.PageRegion) {
		if found.Categories&linux.PAGE_IS_GUARD != 0 {
			l.guards = appendRange(l.guards, found.Start, found.End)
			return
		}
		l.own = appendRange(l.own, found.Start, found.End)
		if tracked && found.Categories&linux.PAGE_IS_WRITTEN == 0 {
			l.clean = appendRange(l.clean, found.Start, found.End)
		}
	})
	switch {
	case tracked && errors.Is(err, unix.EPERM):
		*l = before
		return s.look(l, r, false)
	case errors.Is(err, errors.ErrUnsupported):
		l.own, err = s.read(l.own, r.Start, r.End)
	}
	return err
}

// each calls f for every item, on all processors.
func each[T any](ctx context.Context, items []T, f func(i int, item T) error) error {
	if len(items) == 1 {
		return f(0, items[0])
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, item := range items {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(i, item)
		})
	}
	return g.Wait()
}
