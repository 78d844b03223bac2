// Package restore puts an instance together from the records of a snapshot. It begins where the start of an instance ends:
// with a stub that is pid 1 in its finished namespaces; instead of executing init, that stub and its children become the
// processes of the snapshot.
//
//	files    every open file description is made in the first stub's descriptor table
//	births   every process, with its pid, session and group; each is a stub with a copy of that table. One whose
//	         children share pages with it, or with each other, is given these before it gives birth
//	memory   each stub maps its memory, which we fill; its threads are born with their tids; it takes its descriptors and
//	         drops the rest
//	threads  each takes its credentials, timers, filters
//	takeover a tracer gives each thread its registers, and the freezer keeps them until the instance is resumed
//
// Nothing of the instance runs before that. What has been made so far is the caller's to destroy after an error.
package restore

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/birth"
	"vps/object/kinds"
	"vps/object/memory"
	"vps/object/mount"
	"vps/object/recordset"
	"vps/object/task"
	"vps/pager/lazy"
	"vps/remote"
)

// Group is the part of an instance's cgroup that a restore needs.
type Group interface {
	Procs() ([]int, error)
	Freeze(ctx context.Context) error
}

// Target is where the instance is built.
type Target struct {
	Arena     *remote.Arena
	Page      *remote.Page // slot of the stub that is pid 1
	PidFD     int          // of that stub
	PID       int          // its pid here
	FirstSlot int          // slots that the stubs may use, as many as its [Plan] says
	Socket    *os.File     // our end of a Unix socket whose other end is the stub's descriptor SocketFD
	SocketFD  int
	Group     Group
	// Bear makes a stub in a slot that is not born of the first one, but beside it, with a pid: init's parent is its parent. It has
	// the first one's descriptors up to SocketFD. The caller closes its pidfd.
	Bear       func(ctx context.Context, pid int, page *remote.Page) (pidfd int, err error)
	Console    *os.File          // master side of the console, nil if there is none
	ConsoleTTY int               // its index
	Filter     []unix.SockFilter // the manager's seccomp filter for every process, nil for none
	Bound      uint64            // capabilities that the instance may have
	Force      bool              // restore what is safe to skip
	Warn       func(text string) // is told what was skipped
	// Lazy takes over memory that need not be there before its process runs; nil: all is filled. Userfaultfds are descriptors
	// of ours, and stay the caller's: Lazy copies them. Processes may have missed pages since, and ask for them, before Into returns.
	Lazy func(ctx context.Context, memories []lazy.Memory) error
}

// Plan is a restore that has been thought through: what it needs is known, nothing has been made.
type Plan struct {
	Slots    int // slots that its stubs take: one for each process, helper and further thread, and the last for children that live for a moment
	births   *birth.Plan
	heritage *heritage
	snapshot *dump.Snapshot
	set      *object.Set
}

// Prepare plans the restore of a snapshot, whose records are set.
func Prepare(s *dump.Snapshot, set *object.Set) (*Plan, error) {
	for _, p := range set.Processes {
		if p.GetPpid() == 0 && p.GetState() == dump.Process_ZOMBIE {
			p.Ppid = 1 // the outside reaps at once: init inherits it
		}
	}
	births, err := birth.NewPlan(set.Processes)
	if err != nil {
		return nil, err
	}
	return &Plan{
		Slots:  len(set.Threads) + len(set.Processes) + len(births.Helpers) + 1,
		births: births, heritage: newHeritage(set, s, births.Stages[0], maxHeritageWork), snapshot: s, set: set,
	}, nil
}

// ArenaBase returns an address for an arena of size bytes that is free in all processes.
func (p *Plan) ArenaBase(size uint64) (uint64, error) { return memory.FindHole(size, p.set.Mms) }

// restorer restores one instance.
type restorer struct {
	Target
	snapshot *dump.Snapshot
	set      *object.Set
	plan     *birth.Plan
	heritage *heritage
	content  object.Content
	mounts   *mount.Restored // nil: there are none yet
	files    kinds.Restored
	refs     map[refKey]int
	limits   []uint64 // our own hard limits
	huge     string   // which memory of the host's gets huge pages
	procs    map[uint32]*process
	met      map[int]int // pids inside, by pid here
	faults   int         // descriptor of /dev/userfaultfd in every stub; 0: none
	nextSlot int
	slots    int
	child    sync.Mutex // of the last slot, while many stubs work at the same time
}

// process is a process that is being restored.
type process struct {
	record  *dump.Process
	page    *remote.Page
	host    int // pid here
	pidfd   int
	threads []*thread
	space   *space // nil: another process stands for its memory
}

// thread is a thread that is being restored.
type thread struct {
	record *dump.Thread
	page   *remote.Page
	host   int
	traced *remote.Thread

	filters  []*dump.Seccomp // beyond those that all threads of the process have in common
	batch    *remote.Batch   // the last one that it runs
	call     remote.Result   // of the interrupted call that it makes at its end, if it waits in one
	waits    bool
	sequence [8]byte
}

// Into builds the instance in a target. Then every task is in the freezer, ready to go on.
func (p *Plan) Into(ctx context.Context, t Target) error {
	r := &restorer{
		Target: t, snapshot: p.snapshot, set: p.set, plan: p.births, heritage: p.heritage,
		content: recordset.Content{Snapshot: p.snapshot, Set: p.set}, huge: readHuge(),
		refs: make(map[refKey]int), procs: make(map[uint32]*process), met: make(map[int]int),
		nextSlot: t.FirstSlot, slots: p.Slots,
	}
	defer r.close()
	var err error
	if r.limits, err = task.HardLimits(); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"files", r.makeFiles}, {"processes", r.bear}, {"memory", r.furnish}, {"threads", r.takeOver},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// check refuses what this host cannot restore.
func (r *restorer) check() error {
	if err := memory.CheckVDSO(r.set.Mms); err != nil {
		return err
	}
	for _, m := range r.set.Mounts {
		if !m.GetStandard() && r.Bound&(1<<unix.CAP_SYS_ADMIN) == 0 {
			return fmt.Errorf("mount %s: the instance has no right to mount", m.GetTarget())
		}
	}
	for _, p := range r.set.Processes {
		if err := task.CheckRlimits(p, r.limits); err != nil {
			if !r.Force {
				return err
			}
			r.Warn(err.Error())
		}
	}
	return nil
}

func (r *restorer) close() {
	if r.files.Files != nil {
		r.files.Close()
	}
	if r.mounts != nil {
		r.mounts.Close()
	}
	for _, p := range r.procs {
		if p.pidfd > 0 && p.record.GetPid() != 1 {
			unix.Close(p.pidfd)
		}
	}
}

// slot takes the next free slot.
func (r *restorer) slot() *remote.Page {
	r.nextSlot++
	return r.Arena.Page(r.nextSlot - 1)
}

// nameOf says which process an error is about.
func (p *process) nameOf(set *object.Set, err error) error {
	return fmt.Errorf("%s: %w", p.name(set), err)
}

func (p *process) name(set *object.Set) string {
	return fmt.Sprintf("pid %d (%s)", p.record.GetPid(), set.Threads[uint64(p.record.GetPid())].GetComm())
}

// filterBytes is a filter as struct sock_filter[], little endian.
func filterBytes(filter []unix.SockFilter) []byte {
	var program []byte
	for _, f := range filter {
		program = binary.LittleEndian.AppendUint16(program, f.Code)
		program = append(program, f.Jt, f.Jf)
		program = binary.LittleEndian.AppendUint32(program, f.K)
	}
	return program
}
