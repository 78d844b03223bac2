package birth

import (
	"maps"
	"slices"
)

func (s Stage) add(pid int, op Op, other int) { s[pid] = append(s[pid], Step{op, other}) }

// births is the stage after which everybody is there, in his session and in its first group.
func (p *planner) births() Stage {
	s := make(Stage)
	for _, pid := range append([]int{0}, p.tree.pids()...) {
		c := p.tree[pid]
		for _, child := range slices.Sorted(slices.Values(c.early)) {
			s.add(pid, Birth, child)
		}
		if c.leader() {
			s.add(pid, Setsid, 0)
		}
		for _, child := range slices.Sorted(slices.Values(c.late)) {
			s.add(pid, Birth, child)
		}
		for _, child := range slices.Sorted(slices.Values(c.siblings)) {
			s.add(pid, BirthSibling, child)
		}
	}
	return s
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

// deaths are the stages in which helpers leave their children to their heirs, one heir after the other, then
// all helpers and zombies die.
func (p *planner) deaths() []Stage {
	byHeir := make(map[int][]*process)
	for _, h := range p.dying {
		byHeir[h.reaper] = append(byHeir[h.reaper], h)
	}
	var stages []Stage
	stop := make(Stage)
	for _, heir := range slices.Sorted(maps.Keys(byHeir)) { // process 1 first: it inherits where there is no subreaper
		start, die := stop, make(Stage)
		stop = make(Stage)
		if heir != 1 {
			start.add(heir, StartReaping, 0)
			stop.add(heir, StopReaping, 0)
		}
		helpers := byHeir[heir]
		slices.SortFunc(helpers, func(a, b *process) int { return a.pid - b.pid })
		for _, h := range helpers {
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
		case c.helper && c.reaper == 0:
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
