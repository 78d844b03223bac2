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
// Sessions can only be inherited: a process is born of somebody who is in its session then. If that is not its parent, it is
// born as a brother (CLONE_PARENT), or of a helper that then dies and leaves it to its parent, who is an ancestor; and
// where the leader of a session or group is dead itself, a helper with its pid leads it for a while. What processes share by
// clone(2) is inherited too.
type Plan struct {
	Stages  []Stage // in their order: a stage has ended before the next begins
	Helpers []int   // pids of processes that are not in the records, and are gone after the last stage
}

// Stage is what processes do, each in its own order; all do it at the same time. Process 0 stands for who makes
// processes from outside of the pid namespace.
type Stage map[int][]Step

// Step is something that a process does.
type Step struct {
	Op    Op
	PID   int    // of the child, or of the group
	Share uint64 // what the child shares: CLONE_VM, CLONE_SIGHAND, CLONE_FILES, CLONE_FS
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
	p := &planner{
		tree: t, used: make(map[int]bool), free: 1, leads: make(map[int]bool),
		dying: make(map[helperKey]*process), holders: make(map[shareKey][]*process),
	}
	if err := p.reserve(records); err != nil {
		return nil, err
	}
	p.deadLeaders()
	if err := p.sortByAge(); err != nil {
		return nil, err
	}
	p.sharers()
	for _, step := range []func() error{p.descend, p.parents, p.groups} {
		if err := step(); err != nil {
			return nil, err
		}
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
	tree    lineage
	byAge   []*process   // all but helpers, of whom only leaders of sessions
	used    map[int]bool // numbers that no further helper may have
	free    int
	cost    int
	leads   map[int]bool            // who makes a process group without leading a session
	dying   map[helperKey]*process  // helpers that leave orphans
	holders map[shareKey][]*process // who shares something, the oldest first
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
			g = p.groupHelper(c.pgid, c)
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
		if c.pgid == 0 {
			return fmt.Errorf("pid %d: no way into process group 0 of session %d", pid, c.sid)
		}
		p.groupHelper(p.freePID(), c)
		stays[c.pgid] = true
	}
	return nil
}

// groupHelper adds a helper that is in the process group of a member of its session.
func (p *planner) groupHelper(pid int, member *process) *process {
	maker := p.tree[member.sid]
	if maker.pid == 0 {
		maker = member // nobody but init is made from outside for the sake of others
	}
	h := p.helper(pid, maker, true, member.sid)
	h.pgid = member.pgid
	return h
}

// leaves tells whether a process makes a group for others and is in another one itself.
func (p *planner) leaves(c *process) bool { return p.leads[c.pid] && c.pgid != c.pid }
