// Package birth plans how a process tree comes to be again: who makes whom, in which session and process group, and who
// has to live and die for it. Nothing is dumped here: pids, parents, groups and sessions are in the Process records, and a
// tree that has no plan is found out by the probe. Restoring is [Step.Add], in the batch of each process.
package birth

import (
	"fmt"
	"maps"
	"slices"

	"vps/dump"
	"vps/object"
)

// Plan is the way to a process tree in which every process has its recorded pid, parent, session and process group,
// by nothing but births, setsid(2), setpgid(2) and deaths.
//
// Sessions can only be inherited. A process in another session than its parent was born before its parent led
// that, or is the orphan of somebody who died. Such an orphan is made by its session's leader as a brother
// (CLONE_PARENT), or by a helper that then dies; and where the leader of a session or group is dead itself, a helper
// with its pid leads it for a while.
type Plan struct {
	Stages  []Stage // in their order: a stage has ended before the next begins
	Helpers []int   // pids of processes that are not in the records, and are gone after the last stage
}

// Stage is what processes do, each in its own order; all do it at the same time. Process 0 stands for who makes
// processes from outside of the pid namespace.
type Stage map[int][]Step

// Step is something that a process does.
type Step struct {
	Op  Op
	PID int // of the child, or of the group
}

// Op is what a step does.
type Op int

// In the first stage, a process exists from its birth on. Children send SIGCHLD when they die; see [task.RestoreSigHand].
const (
	Birth        Op = iota // make child PID
	BirthSibling           // make PID as a child of the own parent
	Setsid
	LeadGroup    // setpgid(0, 0)
	JoinGroup    // setpgid(0, PID)
	StartReaping // become a subreaper
	StopReaping
	Exit  // of a helper
	Reap  // wait for the end of helper PID
	Die   // of a zombie, with its wait status
	Await // wait until child PID is a zombie, and leave it one
)

// NewPlan makes the plan for records out of a hostile file. Threads' ids are kept free.
func NewPlan(records map[uint64]*dump.Process) (*Plan, error) {
	t, err := newLineage(records)
	if err != nil {
		return nil, err
	}
	p := &planner{tree: t, used: make(map[int]bool), free: 1, leads: make(map[int]bool), dying: make(map[[2]int]*process)}
	if err := p.reserve(records); err != nil {
		return nil, err
	}
	if err := p.sessions(); err != nil {
		return nil, err
	}
	if err := p.groups(); err != nil {
		return nil, err
	}
	if err := p.reachable(); err != nil {
		return nil, err
	}
	stages := []Stage{p.births()}
	stages = append(stages, p.moves()...)
	stages = append(stages, p.deaths()...)
	plan := &Plan{Stages: slices.DeleteFunc(stages, func(s Stage) bool { return len(s) == 0 })}
	for _, pid := range p.tree.pids() {
		if p.tree[pid].helper {
			plan.Helpers = append(plan.Helpers, pid)
		}
	}
	return plan, nil
}

// planner decides who makes whom.
type planner struct {
	tree  lineage
	used  map[int]bool // numbers that no further helper may have
	free  int
	leads map[int]bool        // who makes a process group without leading a session
	dying map[[2]int]*process // helpers that leave orphans, by session and heir
}

// reserve notes all numbers in use; a number cannot be a thread here and a session or group there.
func (p *planner) reserve(records map[uint64]*dump.Process) error {
	for pid, r := range records {
		p.used[int(pid)], p.used[int(r.GetSid())], p.used[int(r.GetPgid())] = true, true, true
	}
	tids := make(map[int]bool)
	for pid, r := range records {
		for _, n := range r.GetThreads() {
			tid := int(n)
			if tid == int(pid) {
				continue
			}
			if tid < 1 || tid >= object.MaxPID || p.used[tid] || tids[tid] {
				return fmt.Errorf("pid %d: the number of thread %d is out of range or in use", pid, tid)
			}
			tids[tid] = true
		}
	}
	maps.Copy(p.used, tids)
	return nil
}

// sessions finds for every process who makes it, and when.
func (p *planner) sessions() error {
	span := p.spans()
	order := p.tree.pids()
	slices.SortFunc(order, func(a, b int) int { return p.tree[a].in - p.tree[b].in })
	for _, pid := range slices.Backward(order) {
		if err := p.birth(p.tree[pid], span); err != nil {
			return err
		}
	}
	orphans := make(map[int][]*process) // of sessions whose leader is dead
	for _, pid := range order {
		c := p.tree[pid]
		parent := p.tree[c.ppid]
		switch {
		case c.birth < 0 || c.birth == parent.sid:
			parent.late = append(parent.late, pid)
		case parent.leader() && parent.birth == c.birth:
			parent.early = append(parent.early, pid)
		case c.birth != 0 && p.tree[c.birth] == nil:
			orphans[c.birth] = append(orphans[c.birth], c)
			continue
		default:
			if err := p.orphan(c, p.tree[c.birth]); err != nil {
				return err
			}
		}
	}
	for _, sid := range slices.Sorted(maps.Keys(orphans)) {
		if err := p.deadLeader(sid, orphans[sid]); err != nil {
			return err
		}
	}
	return nil
}

// spans returns the first and last place in the walk of each session's members.
func (p *planner) spans() map[int][2]int {
	span := make(map[int][2]int)
	for _, c := range p.tree {
		s, ok := span[c.sid]
		if !ok {
			s = [2]int{c.in, c.in}
		}
		span[c.sid] = [2]int{min(s[0], c.in), max(s[1], c.in)}
	}
	return span
}

// birth finds the session that a process must be born in. Its children have theirs already.
func (p *planner) birth(c *process, span map[int][2]int) error {
	if !c.leader() {
		c.birth = c.sid
		return nil
	}
	for _, pid := range c.children {
		want := p.tree[pid].birth
		if want < 0 || want == c.sid {
			continue
		}
		// Who comes from outside is born in session 0, and a session that lies altogether below is younger than
		// the process: then the child was inherited.
		if c.ppid == 0 && want != 0 {
			continue
		} else if leader := p.tree[want]; want != 0 && leader != nil && p.tree.above(c.pid, want) {
			continue
		} else if leader == nil && span[want][0] > c.in && span[want][1] < c.out {
			continue
		}
		if c.birth >= 0 && c.birth != want {
			return fmt.Errorf("pid %d: born both in session %d and in session %d", c.pid, c.birth, want)
		}
		c.birth = want
	}
	return nil
}

// orphan has a process made in the session of a living leader, or of 0, that is not its parent's.
func (p *planner) orphan(c, leader *process) error {
	switch {
	case leader.pid != 0 && leader.ppid == c.ppid:
		leader.siblings = append(leader.siblings, c.pid)
	case c.ppid == 1 || c.ppid != 0 && p.tree.above(c.ppid, leader.pid):
		h := p.dyingHelper(leader, c.ppid)
		h.late = append(h.late, c.pid)
	default:
		return fmt.Errorf("pid %d: in session %d, to which its parent %d has no way", c.pid, leader.pid, c.ppid)
	}
	return nil
}

// deadLeader makes a helper that leads a session for the sake of its orphans.
func (p *planner) deadLeader(sid int, orphans []*process) error {
	lowest := orphans[0].ppid
	for _, c := range orphans {
		if p.tree[c.ppid].in > p.tree[lowest].in {
			lowest = c.ppid
		}
	}
	leader := &process{pid: sid, ppid: lowest, pgid: sid, sid: sid, birth: -1, helper: true}
	p.tree[lowest].late = append(p.tree[lowest].late, sid)
	p.tree[sid] = leader
	for _, c := range orphans {
		switch {
		case c.ppid == lowest:
			leader.siblings = append(leader.siblings, c.pid)
		case c.ppid == 1 || c.ppid != 0 && p.tree.above(c.ppid, lowest):
			h := p.dyingHelper(leader, c.ppid)
			h.late = append(h.late, c.pid)
		default:
			return fmt.Errorf("pid %d: in session %d, to which its parent %d has no way", c.pid, sid, c.ppid)
		}
	}
	return nil
}

// dyingHelper returns the helper in a session that leaves its children to an heir.
func (p *planner) dyingHelper(leader *process, heir int) *process {
	key := [2]int{leader.pid, heir}
	if h := p.dying[key]; h != nil {
		return h
	}
	h := p.helper(p.freePID(), leader, leader.pid)
	h.reaper = heir
	p.dying[key] = h
	return h
}

// helper adds a helper that a session's leader makes.
func (p *planner) helper(pid int, leader *process, group int) *process {
	h := &process{pid: pid, ppid: leader.pid, pgid: group, sid: leader.pid, birth: leader.pid, helper: true}
	p.tree[pid] = h
	leader.late = append(leader.late, pid)
	return h
}

func (p *planner) freePID() int {
	for p.free++; p.used[p.free]; p.free++ {
	}
	return p.free
}

// groups makes a helper for each process group whose leader is dead. A leader that is in another group at last leaves
// its own; so that no group is empty before all have come, one whose members all come that way gets a helper too.
func (p *planner) groups() error {
	stays := make(map[int]bool) // groups with a member that does not leave another one
	for _, pid := range p.tree.pids() {
		c := p.tree[pid]
		if c.pgid == 0 {
			continue
		}
		g := p.tree[c.pgid]
		if g == nil {
			leader := p.tree[c.sid]
			if leader == nil {
				return fmt.Errorf("pid %d: session %d has no beginning", pid, c.sid)
			}
			g = p.helper(c.pgid, leader, c.pgid)
			stays[c.pgid] = true
		}
		if g.sid != c.sid {
			return fmt.Errorf("pid %d: in session %d, but in process group %d of session %d", pid, c.sid, g.pid, g.sid)
		}
		p.leads[c.pgid] = !g.leader()
	}
	for _, c := range p.tree {
		stays[c.pgid] = stays[c.pgid] || !p.leaves(c)
	}
	for _, pid := range p.tree.pids() {
		c := p.tree[pid]
		if !p.leaves(c) || c.pgid != 0 && stays[c.pgid] {
			continue
		}
		if c.pgid == 0 || p.tree[c.sid] == nil {
			return fmt.Errorf("pid %d: no way into process group %d of session %d", pid, c.pgid, c.sid)
		}
		p.helper(p.freePID(), p.tree[c.sid], c.pgid)
		stays[c.pgid] = true
	}
	return nil
}

// leaves tells whether a process makes a group for others and is in another one itself.
func (p *planner) leaves(c *process) bool { return p.leads[c.pid] && c.pgid != c.pid }

// reachable checks that everybody is made by somebody who is made.
func (p *planner) reachable() error {
	queue := []*process{p.tree[0]}
	count := 0
	for ; len(queue) > 0; count++ {
		c := queue[0]
		queue = queue[1:]
		for _, pid := range slices.Concat(c.early, c.late, c.siblings) {
			p.tree[pid].born = true
			queue = append(queue, p.tree[pid])
		}
	}
	if count == len(p.tree) {
		return nil
	}
	for _, pid := range p.tree.pids() {
		if !p.tree[pid].born {
			return fmt.Errorf("pid %d: no way to be born in session %d with parent %d", pid, p.tree[pid].birth, p.tree[pid].ppid)
		}
	}
	return fmt.Errorf("a process is born twice")
}
