package birth

import (
	"container/heap"
	"fmt"
)

// sortByAge puts all processes into an order in which they can have been born: parents before their children, leaders before the
// members of their sessions. Where neither decides, the lower pid is the older one, as it is until the numbers are used up.
func (p *planner) sortByAge() error {
	for pid, c := range p.tree {
		if pid == 0 {
			continue
		}
		if pid != 1 {
			older(p.tree[1], c) // the first one in a pid namespace
		}
		if c.helper {
			older(p.tree[0], c)
			continue
		}
		parent, leader := p.tree[c.ppid], p.tree[c.sid]
		older(parent, c)
		if !c.leader() {
			older(leader, c)
			// The child's line came through its parent before it came through the session's leader, since the parent was
			// never in that session.
			if !parent.leader() && parent.sid != c.sid {
				older(parent, leader)
			}
		}
	}
	ready := queue{p.tree[0]}
	if p.tree[0].waits > 0 { // somebody in the outer session whose parent is in another one
		ready = nil
	}
	for len(ready) > 0 {
		c := heap.Pop(&ready).(*process)
		c.rank = len(p.byAge)
		p.byAge = append(p.byAge, c)
		for _, y := range c.younger {
			if y.waits--; y.waits == 0 {
				heap.Push(&ready, y)
			}
		}
	}
	if len(p.byAge) == len(p.tree) {
		return nil
	}
	if pid := p.tree.circle(); pid != 0 {
		return fmt.Errorf("pid %d: its ancestors go in a circle", pid)
	}
	for _, pid := range p.tree.pids() {
		if c := p.tree[pid]; c.waits > 0 && !c.helper {
			return noWay(c)
		}
	}
	return fmt.Errorf("sessions are born in a circle")
}

// older notes that one is older than another.
func older(a, b *process) {
	a.younger = append(a.younger, b)
	b.waits++
}

// circle returns a process that is its own ancestor; 0: there is none.
func (t lineage) circle() int {
	seen := make(map[int]int) // from whom the walk came that saw it
	for _, pid := range t.pids() {
		at := pid
		for ; at != 0 && seen[at] == 0; at = t[at].ppid {
			seen[at] = pid
		}
		if at != 0 && seen[at] == pid {
			return at
		}
	}
	return 0
}

func noWay(c *process) error {
	return fmt.Errorf("pid %d: no way to be born in session %d with parent %d", c.pid, c.sid, c.ppid)
}

// queue is a heap of processes, the lowest pid first. Who is made from outside comes before all: no other process has to do with its birth.
type queue []*process

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*process)) }
func (q queue) Less(i, j int) bool {
	if a, b := q[i].outer(), q[j].outer(); a != b {
		return a
	}
	return q[i].pid < q[j].pid
}
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
