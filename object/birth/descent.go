package birth

import (
	"fmt"
	"slices"
)

// maxWork bounds what a forged tree can cost.
const maxWork = 20_000_000

// work counts what a tree costs.
func (p *planner) work(n int) error {
	if p.cost += n; p.cost > maxWork {
		return fmt.Errorf("the process tree is too entangled")
	}
	return nil
}

// deadLeaders adds a helper for the leader of each session that has none any more.
func (p *planner) deadLeaders() {
	for _, pid := range p.tree.pids() {
		sid := p.tree[pid].sid
		if p.tree[sid] == nil {
			p.tree[sid] = &process{pid: sid, pgid: sid, sid: sid, birth: -1, helper: true}
		}
	}
}

// descend finds out below whom each process has to be born, and in which session each session leader.
//
// A process is born in a session only of somebody in that session. It is a child of its parent, or comes to be one because those
// between them die: either way it is born below its parent. So whoever is not in its parent's session is born below
// the session's leader, who must himself be born below the parent, unless the parent was born in that session and led his
// own later. What must lie above the same process lies above each other, the older one higher: so all that is
// known of a process, the youngest first, tells something of older ones. Process 1 is an exception: it inherits from everybody,
// also from those who were born outside.
func (p *planner) descend() error {
	for _, c := range p.byAge[1:] {
		if !c.helper && c.ppid != 1 {
			c.above = append(c.above, p.tree[c.ppid])
		}
		if c.leader() && c.outer() {
			c.birth = 0
		}
	}
	for _, c := range slices.Backward(p.byAge[1:]) {
		if err := p.sharer(c); err != nil {
			return err
		}
		slices.SortFunc(c.above, byAge)
		c.above = slices.Compact(c.above)
		if err := p.work(len(c.above)); err != nil {
			return err
		}
		if c.session() >= 0 {
			if err := p.descendInSession(c); err != nil {
				return err
			}
			continue
		}
		for i, a := range c.above {
			if i > 0 {
				a.above = append(a.above, c.base)
			}
			c.base = a
		}
		if c.base == nil {
			c.base = p.tree[1]
		}
	}
	return nil
}

// descendInSession is descend for a process of which the session is known that it is born in.
func (p *planner) descendInSession(c *process) error {
	leader := p.tree[c.session()]
	c.base = leader
	wanted := false // the leader is among those above
	for _, a := range c.above {
		switch {
		case a == leader:
			wanted = true
			continue
		case a.session() == leader.pid:
		case a.rank < leader.rank:
			leader.above = append(leader.above, a)
			continue
		case a.leader() && a.birth < 0:
			a.birth = leader.pid
		case a.leader():
			return fmt.Errorf("pid %d: born both in session %d and in session %d", a.pid, a.birth, leader.pid)
		default:
			return noWay(c)
		}
		if c.base != leader || wanted {
			a.above = append(a.above, c.base)
		}
		c.base = a
	}
	if init := p.tree[1]; c.base == leader && c.ppid == 1 && init.session() == leader.pid {
		c.base = init
	}
	return nil
}

// parents decides who makes each process, and how that becomes a child of its parent.
func (p *planner) parents() error {
	for _, c := range p.byAge[1:] {
		maker := c.base
		if c.maker != nil && c.maker != maker {
			return fmt.Errorf("pid %d: no way to share with pid %d", c.pid, c.maker.pid)
		}
		if c.helper {
			c.ppid = maker.pid
		}
		if err := p.bear(maker, c); err != nil {
			return err
		}
	}
	return nil
}

// bear lets maker make a process.
func (p *planner) bear(maker, c *process) error {
	inside := c.session() < 0 || c.session() == maker.sid
	birth := making{child: c}
	switch {
	case c.ppid == maker.pid:
		c.bornOf(maker)
	case c.ppid == maker.ppid && maker.pid > 1 && (c.brother || !slices.Contains(c.above, maker)):
		birth.sibling = true
		c.bornOf(maker.parent)
	case c.ppid == 0:
		return noWay(c)
	default:
		h := p.dyingHelper(maker, inside, p.tree[c.ppid])
		h.holds = h.holds.with(maker.holds, maker.holds.shared(c.holds))
		h.late = append(h.late, birth)
		c.bornOf(h)
		return nil
	}
	if maker.pid == 0 && c.helper {
		return fmt.Errorf("pid %d: nobody is there who could have made session %d", c.pid, c.pid)
	}
	if inside {
		maker.late = append(maker.late, birth)
	} else {
		maker.early = append(maker.early, birth)
	}
	return nil
}

// helperKey is what the children of a helper that dies have in common.
type helperKey struct {
	maker, heir *process
	late        bool
}

// dyingHelper returns the child of maker that leaves its own children to an heir. It is in no group but its session's: others join
// theirs only later.
func (p *planner) dyingHelper(maker *process, late bool, heir *process) *process {
	key := helperKey{maker, heir, late}
	if h := p.dying[key]; h != nil {
		return h
	}
	sid := maker.sid
	if !late {
		sid = maker.birth
	}
	h := p.helper(p.freePID(), maker, late, sid)
	h.heir = heir
	p.dying[key] = h
	return h
}

// helper adds a child of maker in a session, that is gone in the end.
func (p *planner) helper(pid int, maker *process, late bool, sid int) *process {
	h := &process{pid: pid, ppid: maker.pid, pgid: sid, sid: sid, birth: -1, helper: true}
	h.bornOf(maker)
	p.tree[h.pid] = h
	if late {
		maker.late = append(maker.late, making{child: h})
	} else {
		maker.early = append(maker.early, making{child: h})
	}
	return h
}

func (p *planner) freePID() int {
	for p.free++; p.used[p.free]; p.free++ {
	}
	return p.free
}
