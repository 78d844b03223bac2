package pager

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
)

// Space is an address space of the instance, as it is at a moment.
type Space struct {
	ID         uint64 // of its Mm record
	PID, PIDFD int    // of a process that has it, here
	Threads    int    // of that process
	VDSO       dump.Range
	Mappings   []Mapping // those that are private, ascending
	Direct     bool      // a device may write to it, without the processor noticing (O_DIRECT): it cannot be tracked
}

// Mapping is a private mapping.
type Mapping struct {
	dump.Range
	Anonymous bool // there is no file below
	Tracked   bool // a userfaultfd tracks what is written to it
}

// Copy is the memory of an instance on its way into a snapshot: in rounds while the instance runs, each with what was written to
// since the one before, and the rest when it is frozen. In the end the snapshot has what was there then: a page that was
// copied and is gone, or is another one's, is withdrawn.
//
// [Copy.Round] may be called any number of times, then [Copy.Freeze] and, when the instance may run again, [Copy.Finish].
// The caller calls [Copy.Close] in any case.
type Copy struct {
	w      *dump.Writer
	spaces map[uint64]*space
	owners map[uint64]*space // by frame: the first that had a page there that others may have too
	stage  *stage            // nil: pages go straight to the writer
}

// space is what is known of an address space.
type space struct {
	key     dump.Key
	tracker *tracker     // nil: none, or given up
	tried   bool         // there was one, or it is not worth it
	sent    []dump.Range // pages of which the snapshot has some state
	sound   []dump.Range // those that were as they are in the snapshot when they were last protected, or have been written to since
	put     bool         // the snapshot has a record of it

	// What is found when the instance is frozen.
	final   bool // it is there
	scanner *Scanner
	kept    []dump.Range            // pages that are in the snapshot as they are
	need    []dump.Range            // pages that are not
	gone    []dump.Range            // pages to be withdrawn
	same    map[source][]dump.Range // pages that are the same as others
}

// NewCopy begins a copy to w.
func NewCopy(w *dump.Writer) *Copy {
	return &Copy{w: w, spaces: make(map[uint64]*space), owners: make(map[uint64]*space)}
}

// Close ends the tracking of what was not closed before.
func (c *Copy) Close() {
	c.untrack()
	if c.stage != nil {
		c.stage.close()
		c.stage = nil
	}
}

func (c *Copy) untrack() {
	for _, sp := range c.spaces {
		sp.giveUp()
	}
}

func (sp *space) giveUp() {
	if sp.tracker != nil {
		sp.tracker.close()
		sp.tracker = nil
	}
}

// Worth tells whether an address space with so many bytes of its own, in a process of so many threads, is worth the tracking,
// which stops each thread for a moment: less is copied faster than that.
func Worth(bytes uint64, threads int) bool { return bytes >= 4<<20+uint64(threads)*256<<10 }

// Own returns how many bytes of an address space are its own.
func Own(s *Space) (uint64, error) {
	scanner, err := NewScanner(s.PID)
	if err != nil {
		return 0, err
	}
	defer scanner.Close()
	var own []dump.Range
	for _, m := range s.Mappings {
		if own, err = scanner.Private(own, m.Start, m.End); err != nil {
			return 0, err
		}
	}
	return length(own), nil
}

// smallest is what a mapping must hold to be tracked.
const smallest = 256 << 10

// settle is how long pages rest between being protected and being copied. The kernel writes to a page that it has pinned
// (process_vm_writev(2), /proc/PID/mem) without noticing that it was protected meanwhile; such a write ends long before.
const settle = 10 * time.Millisecond

// Round copies what was written to since the last round, or all if there was none, of address spaces that are worth it, while their
// processes run. It returns how much it has copied, and for how long a process stood still at most.
func (c *Copy) Round(ctx context.Context, spaces []*Space) (copied uint64, stopped time.Duration, err error) {
	found := make([][]dump.Range, len(spaces))
	for i, s := range spaces {
		sp := c.space(s)
		err := c.prepare(sp, s)
		if sp.tracker != nil {
			stopped = max(stopped, sp.tracker.stopped)
			sp.tracker.stopped = 0
		}
		if err == nil && sp.tracker != nil {
			found[i], err = c.written(sp, s)
		}
		if err != nil {
			found[i] = nil
			sp.giveUp() // it has ended, or is another program; if not, it is copied when it is frozen
		}
	}
	time.Sleep(settle)
	for i, s := range spaces {
		if err := c.copyRunning(ctx, c.space(s), s.PID, found[i]); err != nil {
			return copied, stopped, err
		}
		copied += length(found[i])
	}
	return copied, stopped, nil
}

func (c *Copy) space(s *Space) *space {
	sp := c.spaces[s.ID]
	if sp == nil {
		sp = &space{key: dump.Key{Type: dump.Type_TYPE_MM, ID: s.ID}}
		c.spaces[s.ID] = sp
	}
	return sp
}

// prepare begins to track an address space, if that is worth it.
func (c *Copy) prepare(sp *space, s *Space) error {
	switch {
	case s.Direct:
		sp.giveUp()
		sp.tried = true
		return nil
	case sp.tried:
		return nil
	}
	scanner, err := NewScanner(s.PID)
	if err != nil {
		return err
	}
	defer scanner.Close()
	var own []dump.Range
	for _, m := range s.Mappings {
		if m.Anonymous {
			if own, err = scanner.Private(own, m.Start, m.End); err != nil {
				return err
			}
		}
	}
	if scanner.slow || !Worth(length(own), s.Threads) {
		return nil
	}
	sp.tried = true
	if sp.tracker, err = track(s); err != nil {
		return err
	}
	sp.put = true
	return c.w.Put(s.ID, &dump.Mm{Id: s.ID}) // it is replaced when the layout is known
}

// written returns the pages that were written to since the last call, and counts them as unchanged from here on.
func (c *Copy) written(sp *space, s *Space) ([]dump.Range, error) {
	scanner, err := NewScanner(s.PID)
	if err != nil {
		return nil, err
	}
	defer scanner.Close()
	var found []dump.Range
	for _, m := range s.Mappings {
		if !m.Anonymous {
			continue
		}
		if !m.Tracked {
			own, err := scanner.Private(nil, m.Start, m.End)
			if err != nil {
				return nil, err
			}
			if length(own) < smallest {
				continue
			}
		}
		if ok, err := sp.tracker.add(m.Range); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		if found, err = scanner.written(found, m.Range, !m.Tracked); err != nil {
			return nil, err
		}
	}
	return c.unseen(scanner, sp, found)
}

// Tracks tells whether an address space is being copied in rounds.
func (c *Copy) Tracks(id uint64) bool { return c.spaces[id] != nil && c.spaces[id].tracker != nil }

// Written returns how much is not in the snapshot as it is now, in anonymous mappings of address spaces that are tracked.
func (c *Copy) Written(spaces []*Space) uint64 {
	var n uint64
	for _, s := range spaces {
		sp := c.space(s)
		if sp.tracker == nil {
			continue
		}
		scanner, err := NewScanner(s.PID)
		if err != nil {
			continue // it has ended
		}
		arg := linux.PMScanArg{CategoryMask: linux.PAGE_IS_WRITTEN}
		for _, m := range s.Mappings {
			if m.Anonymous {
				// What cannot be scanned is noticed by the next round. What is not tracked counts as written to.
				_ = scanner.scan(m.Start, m.End, arg, func(r linux.PageRegion) { n += r.End - r.Start })
			}
		}
		scanner.Close()
	}
	return n
}

// Reserve makes room in memory for about n bytes, for what [Copy.Freeze] copies. What does not fit is written while the
// instance is frozen: room is bounded by a part of what the machine has free.
func (c *Copy) Reserve(n uint64) error {
	free, err := available()
	if err != nil {
		return err
	}
	c.stage, err = newStage(min(n, free/4, maxStage))
	return err
}

// Freeze copies what the snapshot does not have yet, of all address spaces of an instance that is frozen.
func (c *Copy) Freeze(ctx context.Context, spaces []*Space) error {
	var list []*space
	defer func() {
		for _, sp := range list {
			sp.scanner.Close()
		}
	}()
	g, _ := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, s := range spaces {
		sp := c.space(s)
		var err error
		if sp.scanner, err = NewScanner(s.PID); err != nil {
			return errors.Join(err, g.Wait())
		}
		list = append(list, sp)
		g.Go(func() error {
			if err := sp.compare(s); err != nil {
				return fmt.Errorf("process %d: %w", s.PID, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := share(list); err != nil {
		return err
	}
	for i, s := range spaces {
		if err := c.copyFrozen(ctx, list[i].key, s.PID, list[i].need); err != nil {
			return err
		}
	}
	return nil
}

// Forget drops what was copied while the instance was frozen, for another try.
func (c *Copy) Forget() {
	if c.stage != nil {
		c.stage.parts, c.stage.free = nil, c.stage.mem
	}
}

// compare finds which pages have to be copied, and which are gone.
func (sp *space) compare(s *Space) error {
	sp.final = true
	if s.Direct {
		sp.giveUp()
	}
	var own, clean []dump.Range
	for _, m := range s.Mappings {
		if m.Anonymous && sp.tracker != nil {
			o, c, err := sp.scanner.compare(nil, nil, m.Range)
			if err == nil {
				own, clean = append(own, o...), append(clean, c...)
				continue
			}
			if !errors.Is(err, unix.EPERM) {
				return err
			}
		}
		var err error
		if own, err = sp.scanner.Private(own, m.Start, m.End); err != nil {
			return err
		}
	}
	sp.kept = intersect(clean, sp.sound)
	sp.need = subtract(own, sp.kept)
	sp.gone = subtract(sp.sent, own)
	return nil
}

// Finish writes what Freeze has copied. The instance may run again.
func (c *Copy) Finish(ctx context.Context) error {
	c.untrack()
	for _, sp := range c.spaces {
		var err error
		switch {
		case sp.final:
			err = c.w.WithdrawPages(sp.key, sp.gone)
		case sp.put:
			err = c.w.Delete(sp.key)
		}
		if err != nil {
			return err
		}
	}
	if err := c.stage.write(ctx, c.w); err != nil {
		return err
	}
	for _, sp := range c.spaces {
		for src, ranges := range sp.same {
			if err := c.w.WriteShared(sp.key, ranges, src.from.key, int64(src.shift)); err != nil {
				return err
			}
		}
	}
	return nil
}

// inParts calls f for parts of the ranges that fit in a frame, on all processors.
func inParts(ctx context.Context, ranges []dump.Range, f func(ranges []dump.Range) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, part := range split(ranges, dump.MaxFrame) {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(part)
		})
	}
	return g.Wait()
}

// copyRunning writes pages of a process that runs. What cannot be read, since it is gone meanwhile, is written as zero and not sound.
func (c *Copy) copyRunning(ctx context.Context, sp *space, pid int, ranges []dump.Range) error {
	var mu sync.Mutex
	var lost []dump.Range
	mem := memory{pid: pid}
	defer mem.close()
	sp.sent = union(sp.sent, ranges)
	err := inParts(ctx, ranges, func(part []dump.Range) error {
		return c.w.WritePages(sp.key, part, func(buf []byte, ranges []dump.Range) error {
			if mem.read(buf, ranges) == nil {
				return nil
			}
			for _, part := range split(ranges, pageSize) {
				if mem.read(buf[:pageSize], part) != nil {
					clear(buf[:pageSize])
					mu.Lock()
					lost = append(lost, part...)
					mu.Unlock()
				}
				buf = buf[pageSize:]
			}
			return nil
		})
	})
	sort(lost)
	sp.sound = subtract(union(sp.sound, ranges), lost)
	return err
}

// copyFrozen copies pages of a process that is stopped.
func (c *Copy) copyFrozen(ctx context.Context, key dump.Key, pid int, ranges []dump.Range) error {
	mem := memory{pid: pid}
	defer mem.close()
	return c.copyParts(ctx, key, ranges, mem.read)
}

// copyParts copies pages that read reads to the stage, or straight to the writer where there is no room.
func (c *Copy) copyParts(ctx context.Context, key dump.Key, ranges []dump.Range, read func([]byte, []dump.Range) error) error {
	return inParts(ctx, ranges, func(ranges []dump.Range) error {
		data := c.stage.take(length(ranges))
		if data == nil {
			return c.w.WritePages(key, ranges, read)
		}
		c.stage.add(part{key, ranges, data})
		return read(data, ranges)
	})
}
