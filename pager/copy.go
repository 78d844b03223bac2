package pager

import (
	"context"
	"slices"
	"sync"
	"time"

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
// [Copy.Round] may be called any number of times, then, when the instance is frozen, [Copy.Look] for each address
// space and [Copy.Freeze], and, when it may run again, [Copy.Finish].
// The caller calls [Copy.Close] in any case.
type Copy struct {
	w      *dump.Writer
	spaces map[uint64]*space
	owners map[uint64]*space // by frame: the first that had a page there that others may have too
	looked []*space          // those of the frozen instance
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
	pid     int
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
	found, any := make([][]dump.Range, len(spaces)), false
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
		any = any || len(found[i]) > 0
	}
	if any {
		time.Sleep(settle)
	}
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

// Reserve makes room in memory for about n bytes, for what [Copy.Freeze] copies. More takes longer; what is more than a part of what
// the machine has free is written while the instance is frozen.
func (c *Copy) Reserve(n uint64) error {
	free, err := available()
	if err != nil {
		return err
	}
	limit := min(free/4, maxStage)
	c.stage, err = newStage(min(n, limit, maxReserve), limit)
	return err
}

// Freeze copies what the snapshot does not have yet, of all address spaces that [Copy.Look] has looked at. Their records may be
// written meanwhile, until laid is closed; nil: they are there.
func (c *Copy) Freeze(ctx context.Context, laid <-chan struct{}) error {
	defer func() {
		for _, sp := range c.looked {
			if sp.scanner != nil {
				sp.scanner.Close()
			}
		}
	}()
	for _, sp := range c.looked {
		var err error
		if sp.scanner, err = NewScanner(sp.pid); err != nil {
			return err
		}
	}
	if err := share(c.looked); err != nil {
		return err
	}
	var parts []part
	memories := make(map[dump.Key]*memory)
	for _, sp := range c.looked {
		memories[sp.key] = &memory{pid: sp.pid}
		defer memories[sp.key].close()
		for _, ranges := range split(sp.need, dump.MaxFrame) {
			parts = append(parts, part{key: sp.key, ranges: ranges})
		}
	}
	return each(ctx, parts, func(_ int, p part) error { return c.copyPart(ctx, p, memories[p.key].read, laid) })
}

// Forget drops what was found and copied while the instance was frozen, for another try.
func (c *Copy) Forget() {
	c.looked = nil
	if c.stage != nil {
		c.stage.parts = nil
	}
}

// Finish writes what Freeze has copied. The instance may run again.
func (c *Copy) Finish(ctx context.Context) error {
	c.untrack()
	for _, sp := range c.spaces {
		if sp.put && !slices.Contains(c.looked, sp) {
			if err := c.w.Delete(sp.key); err != nil {
				return err
			}
		}
	}
	for _, sp := range c.looked {
		if err := c.w.WithdrawPages(sp.key, sp.gone); err != nil {
			return err
		}
	}
	if err := c.stage.write(ctx, c.w); err != nil {
		return err
	}
	for _, sp := range c.looked {
		for src, ranges := range sp.same {
			if err := c.w.WriteShared(sp.key, ranges, src.from.key, int64(src.shift)); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyRunning writes pages of a process that runs. What cannot be read, since it is gone meanwhile, is written as zero and not sound.
func (c *Copy) copyRunning(ctx context.Context, sp *space, pid int, ranges []dump.Range) error {
	var mu sync.Mutex
	var lost []dump.Range
	mem := memory{pid: pid}
	defer mem.close()
	sp.sent = union(sp.sent, ranges)
	err := each(ctx, split(ranges, dump.MaxFrame), func(_ int, part []dump.Range) error {
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

// reader reads ranges of something, one after the other.
type reader func(buf []byte, ranges []dump.Range) error

// copyPart copies pages that read reads to the stage, or to the writer where there is no room, once laid is closed.
func (c *Copy) copyPart(ctx context.Context, p part, read reader, laid <-chan struct{}) error {
	if p.data = c.stage.take(length(p.ranges)); p.data != nil {
		c.stage.add(p)
		return read(p.data, p.ranges)
	}
	if laid != nil {
		select {
		case <-laid:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return c.w.WritePages(p.key, p.ranges, read)
}
