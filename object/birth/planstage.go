package birth

import (
	"maps"
	"slices"
)

// add lets a process take a step.
func (s Stage) add(pid int, op Op, other int) { s[pid] = append(s[pid], Step{Op: op, PID: other}) }

// births is the stage after which everybody is there, in his session and in its first group.
func (p *planner) births() Stage {
	s := make(Stage)
	for pid, c := range p.tree {
		s.addBirths(c, c.early)
		if c.leader() {
			s.add(pid, Setsid, 0)
		}
		s.addBirths(c, c.late)
	}
	return s
}

// addBirths lets a process make others, in the order of their pids, brothers last.
func (s Stage) addBirths(c *process, births []making) {
	slices.SortFunc(births, func(a, b making) int {
		switch {
		case a.sibling == b.sibling:
			return byPID(a.child, b.child)
		case a.sibling:
			return 1
		}
		return -1
	})
	for _, b := range births {
		op := Birth
		if b.sibling {
			op = BirthSibling
		}
		s[c.pid] = append(s[c.pid], Step{op, b.child.pid, c.holds.shared(b.child.holds)})
	}
}

// moves are the stages that bring everybody into his process group: the groups are made, then joined, then left by
// those of their leaders who are elsewhere at last.
func (p *planner) moves() []Stage {
	lead, join, leave := make(Stage), make(Stage), make(Stage)
	for _, pid := range p.tree.pids() {
		c := p.tree[pid]
		if p.leads[pid] {
			lead.add(pid, LeadGroup, 0)
		}
		switch {
		case p.leaves(c):
			leave.add(pid, JoinGroup, c.pgid)
		case c.pgid != pid && c.pgid != c.sid:
			join.add(pid, JoinGroup, c.pgid)
		}
	}
	return []Stage{lead, join, leave}
}

// deaths are the stages in which helpers leave their children to their heirs, the lowest helpers in the tree first, since a death
// moves those below; then all helpers and zombies die.
func (p *planner) deaths() []Stage {
	var stages []Stage
	stop := make(Stage)
	for _, dying := range p.deathOrder() {
		start, die := stop, make(Stage)
		stop = make(Stage)
		if heir := dying[0].heir.pid; heir != 1 { // process 1 inherits where there is no subreaper
			start.add(heir, StartReaping, 0)
			stop.add(heir, StopReaping, 0)
		}
		for _, h := range dying {
			die.add(h.pid, Exit, 0)
			die.add(h.ppid, Reap, h.pid)
		}
		stages = append(stages, start, die)
	}
	stages = append(stages, stop)

	end := make(Stage)
	var last []*process
	for _, pid := range p.tree.pids() {
		switch c := p.tree[pid]; {
		case c.helper && c.heir == nil:
			end.add(c.ppid, Reap, pid)
			last = append(last, c)
		case c.zombie:
			end.add(c.ppid, Await, pid)
			last = append(last, c)
		}
	}
	for _, c := range last { // after their own children have
		if c.zombie {
			end.add(c.pid, Die, 0)
		} else {
			end.add(c.pid, Exit, 0)
		}
	}
	return append(stages, end)
}

// deathOrder gives the helpers that leave orphans in groups with the same heir, each after those below it.
func (p *planner) deathOrder() [][]*process {
	waiting := make(map[*process]int) // for how many below
	byHeir := make(map[*process][]*process)
	left := 0
	for _, h := range p.dying {
		left++
		if h.under != nil {
			waiting[h.under]++
		}
	}
	for _, h := range p.dying {
		if waiting[h] == 0 {
			byHeir[h.heir] = append(byHeir[h.heir], h)
		}
	}
	var order [][]*process
	for left > 0 {
		for _, heir := range slices.SortedFunc(maps.Keys(byHeir), byPID) {
			group := slices.SortedFunc(slices.Values(byHeir[heir]), byPID)
			delete(byHeir, heir)
			left -= len(group)
			order = append(order, group)
			for _, h := range group {
				if a := h.under; a != nil {
					if waiting[a]--; waiting[a] == 0 {
						byHeir[a.heir] = append(byHeir[a.heir], a)
					}
				}
			}
		}
	}
	return order
}
