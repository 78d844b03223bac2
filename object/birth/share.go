package birth

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
)

// holdings are what processes may share by clone(2), by record id, in the order of shareFlags; 0: nothing.
type holdings [4]uint64

var shareFlags = [...]uint64{unix.CLONE_VM, unix.CLONE_SIGHAND, unix.CLONE_FILES, unix.CLONE_FS}

func holdingsOf(r *dump.Process) holdings {
	if r.GetState() == dump.Process_ZOMBIE {
		return holdings{}
	}
	return holdings{r.GetMm(), r.GetSigHand(), r.GetFdTable(), r.GetFs()}
}

// shared returns the flags of clone(2) for what two processes share.
func (h holdings) shared(other holdings) (flags uint64) {
	for i, id := range h {
		if id != 0 && id == other[i] {
			flags |= shareFlags[i]
		}
	}
	return flags
}

// with returns the holdings with those of another process that flags name.
func (h holdings) with(other holdings, flags uint64) holdings {
	for i, flag := range shareFlags {
		if flags&flag != 0 {
			h[i] = other[i]
		}
	}
	return h
}

// sharers notes who shares something, the oldest first.
func (p *planner) sharers() {
	for _, c := range p.byAge {
		for i, id := range c.holds {
			if id != 0 {
				p.holders[shareKey{i, id}] = append(p.holders[shareKey{i, id}], c)
			}
		}
	}
}

// sharer decides who makes a process because it shares with older ones: one of those who share all of that, in whose session it
// can be born. That one then lies above it. Who is above it so far is known.
func (p *planner) sharer(c *process) error {
	var need uint64
	var holders []*process
	for i, id := range c.holds {
		if list := p.holders[shareKey{i, id}]; id != 0 && list[0] != c {
			need |= shareFlags[i]
			holders = list
		}
	}
	if need == 0 {
		return nil
	}
	least := 0
	for _, a := range c.above {
		least = max(least, a.rank)
	}
	for _, h := range holders {
		if err := p.work(1); err != nil {
			return err
		}
		if h.rank < least || h.rank >= c.rank || h.holds.shared(c.holds)&need != need || !p.meets(h, c) {
			continue
		}
		if c.maker == nil || h.pid == c.ppid {
			c.maker = h
		}
	}
	if c.maker == nil {
		return fmt.Errorf("pid %d: no way to share with pid %d (%#x)", c.pid, holders[0].pid, need)
	}
	if !slices.Contains(c.above, c.maker) && c.maker.pid != c.ppid {
		c.above = append(c.above, c.maker)
		c.brother = c.ppid == c.maker.ppid && c.maker.pid > 1
	}
	return nil
}

// meets tells whether a process can be, or have been, in the session in which another one is born.
func (p *planner) meets(maker, c *process) bool {
	s := c.session()
	return s < 0 || maker.sid == s || maker.session() == s || maker.leader() && maker.birth < 0 && maker.rank > p.tree[s].rank
}

// shareKey is something that is shared.
type shareKey struct {
	kind int
	id   uint64
}
