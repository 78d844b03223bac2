package birth

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
)

// kernel plays fork(2), setsid(2), setpgid(2), exit(2) and wait(2) as the kernel does them, pid 0 being outside.
type kernel map[int]*life

type life struct {
	pid, ppid, pgid, sid int
	zombie, subreaper    bool
	holds                holdings // what it may share
}

func newKernel() kernel { return kernel{0: {}} }

// fresh gives a process things of its own, but for what share says it has of somebody else.
func (k kernel) fresh(pid int, from holdings, share uint64) {
	next := uint64(1)
	for _, t := range k {
		next = max(next, slices.Max(t.holds[:])+1)
	}
	t := k[pid]
	t.holds = holdings{next, next, next, next}.with(from, share)
}

// used tells whether a number is that of a process, group or session: nobody can be born with it.
func (k kernel) used(n int) bool {
	for pid, t := range k {
		if pid != 0 && (pid == n || t.pgid == n || t.sid == n) {
			return true
		}
	}
	return false
}

func (k kernel) fork(creator, parent, pid int, share uint64) error {
	c := k[creator]
	if c == nil || c.zombie || k[parent] == nil || k[parent].zombie {
		return fmt.Errorf("%d cannot make a child of %d", creator, parent)
	}
	if k.used(pid) {
		return fmt.Errorf("%d is in use", pid)
	}
	if k[1] == nil && pid != 1 {
		return fmt.Errorf("%d is born before process 1", pid)
	}
	if creator == 0 && share != 0 {
		return fmt.Errorf("%d shares with the outside", pid)
	}
	if share&unix.CLONE_SIGHAND != 0 && share&unix.CLONE_VM == 0 {
		return fmt.Errorf("%d shares signal actions without memory", pid)
	}
	k[pid] = &life{pid: pid, ppid: parent, pgid: c.pgid, sid: c.sid}
	k.fresh(pid, c.holds, share)
	return nil
}

func (k kernel) setsid(pid int) error {
	for _, t := range k {
		if t.pgid == pid {
			return fmt.Errorf("%d leads a group", pid)
		}
	}
	k[pid].sid, k[pid].pgid = pid, pid
	return nil
}

func (k kernel) setpgid(pid, group int) error {
	t := k[pid]
	if t.sid == pid {
		return fmt.Errorf("%d leads a session", pid)
	}
	if group == 0 {
		group = pid
	}
	if group != pid {
		found := false
		for _, o := range k {
			found = found || o.pid != 0 && o.pgid == group && o.sid == t.sid
		}
		if !found {
			return fmt.Errorf("no group %d in session %d", group, t.sid)
		}
	}
	t.pgid = group
	return nil
}

func (k kernel) exit(pid int) {
	heir := 1
	for at := k[pid].ppid; at != 0 && at != 1; at = k[at].ppid {
		if k[at].subreaper && !k[at].zombie {
			heir = at
			break
		}
	}
	for _, t := range k {
		if t.ppid == pid && t.pid != 0 {
			t.ppid = heir
		}
	}
	k[pid].zombie = true
}

// records returns what a dump would find.
func (k kernel) records() map[uint64]*dump.Process {
	m := make(map[uint64]*dump.Process)
	for pid, t := range k {
		if pid == 0 {
			continue
		}
		p := &dump.Process{Pid: uint32(pid), Ppid: uint32(t.ppid), Pgid: uint32(t.pgid), Sid: uint32(t.sid), ChildSubreaper: t.subreaper}
		if t.zombie {
			p.State = dump.Process_ZOMBIE
		}
		m[uint64(pid)] = p
	}
	return m
}

// share adds what the processes share to their records: the lowest pid of those who do, so that it does not depend on how they came to.
func (k kernel) share(records map[uint64]*dump.Process) map[uint64]*dump.Process {
	first := make(map[shareKey]uint64)
	for _, pid := range slices.Sorted(maps.Keys(k)) {
		t := k[pid]
		if pid == 0 || t.zombie {
			continue
		}
		p := records[uint64(pid)]
		for i, to := range []*uint64{&p.Mm, &p.SigHand, &p.FdTable, &p.Fs} {
			key := shareKey{i, t.holds[i]}
			if first[key] == 0 {
				first[key] = uint64(pid)
			}
			*to = first[key]
		}
	}
	return records
}

// obey plays a plan, the processes of a stage in random order.
func (k kernel) obey(plan *Plan, r *rand.Rand) error {
	for i, stage := range plan.Stages {
		left := maps.Clone(stage)
		for len(left) > 0 {
			moved := false
			pids := slices.Sorted(maps.Keys(left))
			r.Shuffle(len(pids), func(a, b int) { pids[a], pids[b] = pids[b], pids[a] })
			for _, pid := range pids {
				if k[pid] == nil || !k.ready(left[pid][0]) {
					continue
				}
				if err := k.step(pid, left[pid][0]); err != nil {
					return fmt.Errorf("stage %d, process %d, %v: %w", i, pid, left[pid][0], err)
				}
				moved = true
				if left[pid] = left[pid][1:]; len(left[pid]) == 0 {
					delete(left, pid)
				}
			}
			if !moved {
				return fmt.Errorf("stage %d hangs: %v", i, left)
			}
		}
	}
	return nil
}

func (k kernel) ready(s Step) bool {
	return s.Op != Reap && s.Op != Await || k[s.PID] != nil && k[s.PID].zombie
}

func (k kernel) step(pid int, s Step) error {
	if k[pid].zombie {
		return fmt.Errorf("it is dead")
	}
	switch s.Op {
	case Birth:
		return k.fork(pid, pid, s.PID, s.Share)
	case BirthSibling:
		return k.fork(pid, k[pid].ppid, s.PID, s.Share)
	case Setsid:
		return k.setsid(pid)
	case LeadGroup:
		return k.setpgid(pid, pid)
	case JoinGroup:
		return k.setpgid(pid, s.PID)
	case StartReaping, StopReaping:
		k[pid].subreaper = s.Op == StartReaping
	case Exit, Die:
		k.exit(pid)
	case Reap, Await:
		if k[s.PID].ppid != pid {
			return fmt.Errorf("%d is not its child", s.PID)
		}
		if s.Op == Reap {
			delete(k, s.PID)
		}
	}
	return nil
}

// live lets an instance live for a while: it starts, forks, leads sessions and groups, shares, and dies at random. Pids are given
// in their order, or, as if they had been used up often, at random.
func live(r *rand.Rand, steps int, ordered bool) kernel {
	k := newKernel()
	k.fork(0, 0, 1, 0)
	if r.IntN(2) == 0 {
		k.setsid(1)
	}
	next := 2
	number := func() int {
		if !ordered {
			return 2 + r.IntN(5*steps)
		}
		next += 1 + r.IntN(3)
		return next
	}
	shares := []uint64{0, 0, 0, 0, 0, 0, unix.CLONE_FILES, unix.CLONE_FS, unix.CLONE_VM, unix.CLONE_VM | unix.CLONE_SIGHAND,
		unix.CLONE_VM | unix.CLONE_SIGHAND | unix.CLONE_FILES | unix.CLONE_FS}
	for range steps {
		pids := slices.Sorted(maps.Keys(k))
		pid := pids[r.IntN(len(pids))]
		t := k[pid]
		if t.zombie {
			if r.IntN(2) == 0 {
				delete(k, pid)
			}
			continue
		}
		share := shares[r.IntN(len(shares))]
		switch n := r.IntN(24); {
		case pid == 0 && r.IntN(4) != 0: // an exec is rare
		case pid == 0:
			k.fork(0, 0, number(), 0)
		case n < 10:
			k.fork(pid, pid, number(), share)
		case n < 12 && t.ppid != 0:
			k.fork(pid, t.ppid, number(), share)
		case n < 14:
			k.setsid(pid)
		case n < 17:
			k.setpgid(pid, k[pids[r.IntN(len(pids))]].pgid)
		case n < 18:
			k.setpgid(pid, pid)
		case n < 19:
			t.subreaper = r.IntN(2) == 0
		case n < 20:
			k.fresh(pid, t.holds, share) // unshare(2), execve(2)
		case pid != 1:
			k.exit(pid)
		}
	}
	return k
}

// What lived can be made again: the same tree, whatever the order within a stage.
func TestPlanOfLives(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	helpers, dying, strangers := 0, 0, 0
	for round := range 3000 {
		k := live(r, 5+r.IntN(150), true)
		want := k.share(k.records())
		plan, err := NewPlan(want)
		if err != nil && strings.Contains(err.Error(), "no way to share") {
			strangers++ // what a parent has let go of cannot come to its child any more
			continue
		}
		if err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, show(want))
		}
		again := newKernel()
		if err := again.obey(plan, r); err != nil {
			t.Fatalf("round %d: %v\n%s\n%v", round, err, show(want), plan.Stages)
		}
		for pid, p := range again.share(again.records()) {
			p.ChildSubreaper = want[pid].GetChildSubreaper() // the restored process sets it itself
			want[pid].WaitStatus = 0
			if fmt.Sprint(p) != fmt.Sprint(want[pid]) {
				t.Fatalf("round %d: got %v, want %v\n%s", round, p, want[pid], show(want))
			}
		}
		if len(again) != len(want)+1 {
			t.Fatalf("round %d: %d processes, want %d", round, len(again)-1, len(want))
		}
		helpers += len(plan.Helpers)
		for _, s := range plan.Stages {
			for _, steps := range s {
				for _, step := range steps {
					if step.Op == StartReaping {
						dying++
					}
				}
			}
		}
	}
	if strangers > 300 {
		t.Errorf("%d lives with sharing that cannot be made again", strangers)
	}
	if helpers == 0 || dying == 0 {
		t.Errorf("the lives needed %d helpers and %d subreapers: too dull", helpers, dying)
	}
}

func show(records map[uint64]*dump.Process) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(records)) {
		p := records[id]
		fmt.Fprintf(&b, "pid %d ppid %d pgid %d sid %d %v %v\n", p.GetPid(), p.GetPpid(), p.GetPgid(), p.GetSid(), p.GetState(), holdingsOf(p))
	}
	return b.String()
}

// Where the numbers do not tell who is older, a few trees are not understood; none is made wrong.
func TestPlanOfMixedNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	refused := 0
	for range 2000 {
		k := live(r, 5+r.IntN(100), false)
		want := k.records()
		plan, err := NewPlan(want)
		if err != nil {
			refused++
			continue
		}
		again := newKernel()
		if err := again.obey(plan, r); err != nil {
			t.Fatalf("%v\n%s\n%v", err, show(want), plan.Stages)
		}
		got := again.records()
		for pid, p := range got {
			p.ChildSubreaper = want[pid].GetChildSubreaper()
		}
		if show(got) != show(want) {
			t.Fatalf("got\n%swant\n%s", show(got), show(want))
		}
	}
	if refused > 10 {
		t.Errorf("%d trees have no plan", refused)
	}
}

// Any records give a plan that works, or an error.
func TestPlanOfForgeries(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	good := 0
	for range 30000 {
		records := make(map[uint64]*dump.Process)
		n := 1 + r.IntN(7)
		for pid := 1; pid <= n; pid++ {
			p := &dump.Process{Pid: uint32(pid), Ppid: uint32(r.IntN(n + 1)), Sid: uint32(r.IntN(n + 2)), Pgid: uint32(r.IntN(n + 3))}
			switch {
			case pid == 1:
				p.Ppid, p.Sid, p.Pgid = 0, 1, 1
			case r.IntN(2) == 0:
				p.Ppid, p.Pgid = 1, p.Sid
			}
			if r.IntN(5) == 0 {
				p.State = dump.Process_ZOMBIE
			}
			records[uint64(pid)] = p
		}
		plan, err := NewPlan(records)
		if err != nil {
			continue
		}
		good++
		k := newKernel()
		if err := k.obey(plan, r); err != nil {
			t.Fatalf("%v\n%s\n%v", err, show(records), plan.Stages)
		}
		got := k.records()
		for _, p := range got {
			p.ChildSubreaper = false
		}
		if show(got) != show(records) {
			t.Fatalf("got\n%swant\n%s", show(got), show(records))
		}
	}
	if good < 1000 {
		t.Errorf("only %d of the forgeries were possible", good)
	}
}

func TestPlanOfDaemon(t *testing.T) {
	records := map[uint64]*dump.Process{
		1:  {Pid: 1, Pgid: 1, Sid: 1},
		50: {Pid: 50, Ppid: 1, Pgid: 48, Sid: 48}, // fork, setsid, fork
	}
	plan, err := NewPlan(records)
	if err != nil {
		t.Fatal(err)
	}
	want := []Stage{
		{0: {{Op: Birth, PID: 1}}, 1: {{Op: Setsid}, {Op: Birth, PID: 48}}, 48: {{Op: Setsid}, {Op: BirthSibling, PID: 50}}},
		{1: {{Op: Reap, PID: 48}}, 48: {{Op: Exit}}},
	}
	if fmt.Sprint(plan.Stages) != fmt.Sprint(want) || !slices.Equal(plan.Helpers, []int{48}) {
		t.Errorf("stages %v, helpers %v", plan.Stages, plan.Helpers)
	}
}

// A child of a session leader is in a session whose leader is dead, and was born of a brother of that parent's.
func TestPlanOfEntangledSessions(t *testing.T) {
	records := make(map[uint64]*dump.Process)
	for _, p := range [][4]uint32{{1, 0, 1, 1}, {5, 1, 5, 5}, {6, 5, 6, 6}, {8, 6, 7, 7}, {15, 6, 12, 12}, {10, 5, 10, 10}, {11, 10, 7, 7}, {13, 10, 12, 12}} {
		records[uint64(p[0])] = &dump.Process{Pid: p[0], Ppid: p[1], Pgid: p[2], Sid: p[3]}
	}
	plan, err := NewPlan(records)
	if err != nil {
		t.Fatal(err)
	}
	k := newKernel()
	if err := k.obey(plan, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
	if got := k.records(); show(got) != show(records) {
		t.Errorf("got\n%swant\n%s", show(got), show(records))
	}
}

// Two orphans share what their dead parent had.
func TestPlanOfSharingOrphans(t *testing.T) {
	records := map[uint64]*dump.Process{
		1: {Pid: 1, Pgid: 1, Sid: 1, FdTable: 1},
		4: {Pid: 4, Ppid: 1, Pgid: 1, Sid: 1, FdTable: 2},
		5: {Pid: 5, Ppid: 1, Pgid: 1, Sid: 1, FdTable: 2},
	}
	plan, err := NewPlan(records)
	if err != nil {
		t.Fatal(err)
	}
	want := []Stage{{
		0: {{Op: Birth, PID: 1}}, 1: {{Op: Setsid}, {Op: Birth, PID: 4}},
		4: {{Op: BirthSibling, PID: 5, Share: unix.CLONE_FILES}},
	}}
	if fmt.Sprint(plan.Stages) != fmt.Sprint(want) {
		t.Errorf("stages %v", plan.Stages)
	}
}

func TestImpossibleTrees(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []*dump.Process
		want    string
	}{
		{"nothing", nil, "no process 1"},
		{"init is a zombie", []*dump.Process{{Pid: 1, State: dump.Process_ZOMBIE}}, "no process 1"},
		{"unknown parent", []*dump.Process{{Pid: 1}, {Pid: 2, Ppid: 7}}, "parent 7 is not there"},
		{"circle", []*dump.Process{{Pid: 1}, {Pid: 2, Ppid: 3}, {Pid: 3, Ppid: 2}}, "in a circle"},
		{"itself", []*dump.Process{{Pid: 1}, {Pid: 2, Ppid: 2}}, "in a circle"},
		{"high pid", []*dump.Process{{Pid: 1}, {Pid: 1 << 22}}, "with pid"},
		{"high group", []*dump.Process{{Pid: 1, Pgid: 1 << 31}}, "out of range"},
		{"child of a zombie", []*dump.Process{{Pid: 1}, {Pid: 2, Ppid: 1, State: dump.Process_ZOMBIE}, {Pid: 3, Ppid: 2}}, "is a zombie"},
		{"zombie that stopped", []*dump.Process{{Pid: 1}, {Pid: 2, Ppid: 1, State: dump.Process_ZOMBIE, WaitStatus: 0x137f}}, "wait status"},
		{"zombie by SIGCHLD", []*dump.Process{{Pid: 1}, {Pid: 2, Ppid: 1, State: dump.Process_ZOMBIE, WaitStatus: 17}}, "wait status"},
		{"session of nobody's", []*dump.Process{{Pid: 1, Pgid: 1, Sid: 1}, {Pid: 2, Ppid: 1, Pgid: 2, Sid: 3}, {Pid: 3, Ppid: 2, Pgid: 1, Sid: 1}}, "does not lead"},
		{"leader elsewhere", []*dump.Process{{Pid: 1, Pgid: 7, Sid: 1}}, "a session leader in process group 7"},
		{"group of another session", []*dump.Process{{Pid: 1, Pgid: 1, Sid: 1}, {Pid: 2, Ppid: 1, Pgid: 1, Sid: 2}}, "session leader in"},
		{"dead group of two sessions", []*dump.Process{
			{Pid: 1, Pgid: 1, Sid: 1}, {Pid: 2, Ppid: 1, Pgid: 9, Sid: 1}, {Pid: 3, Ppid: 1, Pgid: 3, Sid: 3}, {Pid: 4, Ppid: 3, Pgid: 9, Sid: 3},
		}, "of session"},
		{"thread number twice", []*dump.Process{{Pid: 1, Threads: []uint32{1, 2}}, {Pid: 2, Ppid: 1}}, "in use"},
		{"thread that is a session", []*dump.Process{{Pid: 1, Threads: []uint32{1, 5}}, {Pid: 2, Ppid: 1, Sid: 5, Pgid: 5}}, "in use"},
		{"init in a session", []*dump.Process{{Pid: 1, Sid: 5, Pgid: 5}}, "no process 1"},
		{"below its own session's leader", []*dump.Process{
			{Pid: 1, Pgid: 1, Sid: 1}, {Pid: 2, Ppid: 1, Pgid: 3, Sid: 3}, {Pid: 3, Ppid: 2, Pgid: 3, Sid: 3},
		}, "no way"},
	} {
		records := make(map[uint64]*dump.Process)
		for _, p := range c.records {
			records[uint64(p.GetPid())] = p
		}
		if _, err := NewPlan(records); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestDeadly(t *testing.T) {
	for status, want := range map[uint32]bool{
		0: true, 0x100: true, 0xff00: true, 0x10000: false, 9: true, 0x8b: true, 17: false, 0x7f: false, 0x109: false, 65: false, 64: true, 0xffff: false,
	} {
		if object.Deadly(status) != want {
			t.Errorf("wait status %#x: %v", status, !want)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	records := live(rand.New(rand.NewPCG(5, 6)), 8000, true).records()

	for b.Loop() {
		if _, err := NewPlan(records); err != nil {
			b.Fatal(err)
		}
	}
}
