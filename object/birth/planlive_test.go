package birth

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/object"
	"vps/object/task"
	"vps/remote"
)

// The real kernel agrees: trees that lived in the model are made in a pid namespace.
func TestPlanForReal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r := rand.New(rand.NewPCG(7, 8))
	for round := range 6 {
		k := live(r, 20+r.IntN(150), true)
		want := k.share(k.records())
		for _, p := range want {
			if p.State == dump.Process_ZOMBIE {
				p.WaitStatus = []uint32{0, 0x300, 9, 11, 15, 64}[r.IntN(6)]
			}
			p.ChildSubreaper = false
		}
		plan, err := NewPlan(want)
		if err != nil && strings.Contains(err.Error(), "no way to share") {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			n := newNest(t, want, plan)
			for _, stage := range plan.Stages {
				n.play(stage)
			}
			got := n.records()
			if showExit(got) != showExit(want) {
				t.Fatalf("got\n%swant\n%s%v", showExit(got), showExit(want), plan.Stages)
			}
		})
	}
}

func showExit(records map[uint64]*dump.Process) (text string) {
	text = show(records)
	for _, id := range slices.Sorted(maps.Keys(records)) {
		if p := records[id]; p.WaitStatus != 0 {
			text += fmt.Sprintf("pid %d ended with %#x\n", id, p.WaitStatus)
		}
	}
	return text
}

// nest is a pid namespace that is filled by a stub outside of it.
type nest struct {
	*objecttest.Stub
	want  map[uint64]*dump.Process
	slots map[int]int
}

func newNest(t *testing.T, want map[uint64]*dump.Process, plan *Plan) *nest {
	n := &nest{&objecttest.Stub{T: t}, want, map[int]int{0: 0}}
	for pid := range want {
		n.slots[int(pid)] = len(n.slots)
	}
	for _, pid := range plan.Helpers {
		n.slots[pid] = len(n.slots)
	}
	var err error
	if n.Arena, err = remote.NewArena(0x600000000000, len(n.slots), 16<<10); err != nil {
		t.Fatal(err)
	}
	if n.PID, n.PidFD, err = remote.Spawn(n.Arena, 0, remote.SpawnOptions{UserNS: objecttest.UserRange}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	n.Run(0, func(b *remote.Batch) { b.Call("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWPID) })
	return n
}

func (n *nest) close() {
	if init := n.host(1); init != 0 {
		unix.Kill(init, unix.SIGKILL)
	}
	// Its own children first, so that nobody else has to reap them.
	n.Try(0, func(b *remote.Batch) {
		for range 40 {
			b.Try("reap", unix.SYS_WAIT4, -1, 0, unix.WALL, 0)
		}
	})
	unix.PidfdSendSignal(n.PidFD, unix.SIGKILL, nil, 0)
	unix.Wait4(n.PID, nil, unix.WALL, nil)
	unix.Close(n.PidFD)
	n.Arena.Close()
}

func (n *nest) page(pid int) *remote.Page { return n.Arena.Page(n.slots[pid]) }

// play lets all stubs do their part of a stage; those that are born in it find it in their slots.
func (n *nest) play(stage Stage) {
	n.T.Helper()
	batches := make(map[int]*remote.Batch)
	for pid, steps := range stage {
		b := n.page(pid).Batch()
		ends := false
		for _, s := range steps {
			if pid == 0 && s.Op >= Exit {
				s.PID = n.host(s.PID)
			}
			s.Add(b, n.want[uint64(pid)], n.page)
			ends = ends || s.Op == Exit || s.Op == Die
		}
		if !ends {
			batches[pid] = b
		}
		if err := b.Start(); err != nil {
			n.T.Fatal(err)
		}
	}
	for pid, b := range batches {
		if err := b.Wait(n.T.Context(), n.PidFD); err != nil {
			n.T.Fatalf("pid %d: %v: %v", pid, stage[pid], err)
		}
	}
}

// tasks lists the status of all processes of the namespace by their inner pids.
func (n *nest) tasks() map[int]*object.Status {
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", n.PID))
	list := make(map[int]*object.Status)
	dir, _ := os.ReadDir("/proc")
	for _, e := range dir {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); ns == "" || ns != own {
			continue
		}
		if s, err := object.ReadStatus(pid); err == nil {
			inner, _, _ := s.Inside()
			list[inner] = s
		}
	}
	return list
}

func (n *nest) host(pid int) int {
	if s := n.tasks()[pid]; s != nil {
		return s.PID
	}
	return 0
}

func (n *nest) records() map[uint64]*dump.Process {
	n.T.Helper()
	tasks := n.tasks()
	inner := make(map[int]int)
	for pid, s := range tasks {
		inner[s.PID] = pid
	}
	records := make(map[uint64]*dump.Process)
	sharings := object.NewSharings()
	for _, pid := range slices.Sorted(maps.Keys(tasks)) {
		s := tasks[pid]
		p, err := task.DumpProcess(s)
		if err != nil {
			n.T.Fatal(err)
		}
		r := &dump.Process{Pid: p.Pid, Ppid: uint32(inner[s.PPID]), Pgid: p.Pgid, Sid: p.Sid, State: p.State, WaitStatus: p.WaitStatus}
		if p.State != dump.Process_ZOMBIE {
			if err := sharings.Fill(r, object.Proc{PID: pid, Host: s.PID}); err != nil {
				n.T.Fatal(err)
			}
		}
		records[uint64(pid)] = r
	}
	return records
}
