package birth

import (
	"fmt"
	"maps"
	"slices"

	"vps/dump"
	"vps/object"
)

const (
	maxProcesses = 1_000_000
)

// process is a process as the plan sees it: a recorded one, a helper, or 0, which is what makes processes from
// outside of the pid namespace, in a session and group of the outside (both 0).
type process struct {
	pid, ppid, pgid, sid int
	zombie               bool

	children []int // recorded ones, ascending
	in, out  int   // its place in a walk through the tree: descendants lie between

	// A session leader is born in another session than it leads; which one matters only to the children that it
	// had before setsid(2). -1: to nobody.
	birth int

	helper      bool
	reaper      int   // a helper made to die while this one inherits its children; 0: it dies without any
	born        bool  // somebody makes it
	early, late []int // whom it makes, before and after setsid(2)
	siblings    []int // whom it makes as its parent's child (CLONE_PARENT), after setsid(2)
}

func (p *process) leader() bool { return p.pid != 0 && p.sid == p.pid }

// lineage is the processes of a restore, by pid.
type lineage map[int]*process

// newLineage checks the records: a tree with process 1, and sessions and groups as the kernel could have made them.
func newLineage(records map[uint64]*dump.Process) (lineage, error) {
	if len(records) > maxProcesses {
		return nil, fmt.Errorf("%d processes are more than %d", len(records), maxProcesses)
	}
	t := lineage{0: {birth: 0, born: true}}
	for _, id := range slices.Sorted(maps.Keys(records)) {
		r := records[id]
		if id != uint64(r.GetPid()) || id < 1 || id >= object.MaxPID {
			return nil, fmt.Errorf("process record %d with pid %d", id, r.GetPid())
		}
		if max(r.GetPpid(), r.GetPgid(), r.GetSid()) >= object.MaxPID {
			return nil, fmt.Errorf("pid %d: parent %d, group %d or session %d out of range", id, r.GetPpid(), r.GetPgid(), r.GetSid())
		}
		t[int(id)] = &process{
			pid: int(id), ppid: int(r.GetPpid()), pgid: int(r.GetPgid()), sid: int(r.GetSid()), birth: -1,
			zombie: r.GetState() == dump.Process_ZOMBIE,
		}
		if r.GetState() == dump.Process_ZOMBIE && !object.Deadly(r.GetWaitStatus()) {
			return nil, fmt.Errorf("pid %d: a zombie with wait status %#x", id, r.GetWaitStatus())
		}
	}
	if init := t[1]; init == nil || init.ppid != 0 || init.zombie || init.sid > 1 {
		return nil, fmt.Errorf("no process 1 that is alive, with parent 0, in session 0 or 1")
	}
	for _, pid := range t.pids() {
		p := t[pid]
		if err := t.check(p); err != nil {
			return nil, fmt.Errorf("pid %d: %w", pid, err)
		}
		t[p.ppid].children = append(t[p.ppid].children, pid)
	}
	return t, t.walk()
}

// pids returns all pids but 0, ascending.
func (t lineage) pids() []int {
	pids := slices.Sorted(maps.Keys(t))
	return pids[1:]
}

func (t lineage) check(p *process) error {
	parent := t[p.ppid]
	switch {
	case parent == nil:
		return fmt.Errorf("parent %d is not there", p.ppid)
	case parent.zombie:
		return fmt.Errorf("parent %d is a zombie", p.ppid)
	case p.leader() && p.pgid != p.pid:
		return fmt.Errorf("a session leader in process group %d", p.pgid)
	case p.pgid == 0 && p.sid != 0:
		return fmt.Errorf("session %d, but an outer process group", p.sid)
	}
	if s := t[p.sid]; p.sid != 0 && s != nil && !s.leader() {
		return fmt.Errorf("in session %d, whose process does not lead it", p.sid)
	}
	if g := t[p.pgid]; p.pgid != 0 && g != nil && g.sid != p.sid {
		return fmt.Errorf("in session %d, but in process group %d of session %d", p.sid, p.pgid, g.sid)
	}
	return nil
}

// walk numbers the processes so that descendants are known, and finds those that do not descend from 0.
func (t lineage) walk() error {
	count, path := 0, []int{0}
	next := make(map[int]int) // child to visit
	for len(path) > 0 {
		p := t[path[len(path)-1]]
		i := next[p.pid]
		if i == 0 {
			p.in = count
			count++
		}
		if i == len(p.children) {
			p.out = count
			path = path[:len(path)-1]
			next[p.pid] = -1
			continue
		}
		next[p.pid]++
		path = append(path, p.children[i])
	}
	if count < len(t) {
		for _, pid := range t.pids() {
			if next[pid] == 0 {
				return fmt.Errorf("pid %d: its ancestors go in a circle", pid)
			}
		}
	}
	return nil
}

// above tells whether a is a recorded ancestor of b, and not b itself.
func (t lineage) above(a, b int) bool { return t[a].in < t[b].in && t[b].in < t[a].out }
