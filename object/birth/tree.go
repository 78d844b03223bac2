package birth

import (
	"cmp"
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
	zombie, helper       bool
	holds                holdings

	// rank is its place by age; younger are those that are known to be born later, and waits counts the other way round.
	rank    int
	younger []*process
	waits   int

	// birth is the session in which a session leader is born, if that matters; -1: in any.
	birth int
	// above are those that it must descend from in the tree of births; base is the youngest of them in whose session it is
	// born, or the leader of that session.
	above []*process
	base  *process
	// maker is who makes it for the sake of what they share; nil: nobody in particular. brother says that they are to be brothers.
	maker   *process
	brother bool

	parent      *process // of whom it is born, before anybody dies
	under       *process // the nearest ancestor by birth that dies while somebody inherits
	heir        *process // of a helper made to die while this one inherits its children; nil: it dies without any
	early, late []making // whom it makes, before and after setsid(2)
}

// making is a birth.
type making struct {
	child   *process
	sibling bool // it becomes a child of the maker's parent (CLONE_PARENT)
}

func (p *process) leader() bool { return p.pid != 0 && p.sid == p.pid }

// outer tells whether a process is made by 0.
func (p *process) outer() bool { return p.ppid == 0 && !p.helper }

// session is the one in which a process is born; -1: any.
func (p *process) session() int {
	if p.leader() {
		return p.birth
	}
	return p.sid
}

// bornOf notes of whom a process is born.
func (p *process) bornOf(parent *process) {
	p.parent, p.under = parent, parent.under
	if parent.heir != nil {
		p.under = parent
	}
}

func byPID(a, b *process) int { return cmp.Compare(a.pid, b.pid) }
func byAge(a, b *process) int { return cmp.Compare(a.rank, b.rank) }

// lineage is the processes of a restore, by pid.
type lineage map[int]*process

// newLineage checks the records: a tree with process 1, and sessions and groups as the kernel could have made them.
func newLineage(records map[uint64]*dump.Process) (lineage, error) {
	if len(records) > maxProcesses {
		return nil, fmt.Errorf("%d processes are more than %d", len(records), maxProcesses)
	}
	t := lineage{0: {}}
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
			zombie: r.GetState() == dump.Process_ZOMBIE, holds: holdingsOf(r),
		}
		if r.GetState() == dump.Process_ZOMBIE && !object.Deadly(r.GetWaitStatus()) {
			return nil, fmt.Errorf("pid %d: a zombie with wait status %#x", id, r.GetWaitStatus())
		}
	}
	if init := t[1]; init == nil || init.ppid != 0 || init.zombie || init.sid > 1 {
		return nil, fmt.Errorf("no process 1 that is alive, with parent 0, in session 0 or 1")
	}
	for _, pid := range t.pids() {
		if err := t.check(t[pid]); err != nil {
			return nil, fmt.Errorf("pid %d: %w", pid, err)
		}
	}
	return t, nil
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
