// Package suspend stops an instance: every task is held on its way out of the kernel, with the call that it was in
// still to be made, and then either goes on or is left to the freezer. A suspended instance depends on nobody.
//
// The cgroup freezer stops all tasks at one moment, but answers EINTR to some calls; a tracer sees that and puts the
// calls back. So an instance is frozen, each task is seized in the freezer, and the freezer let go: the tracer
// holds them, and can have them run batches. At the end the freezer takes over again, or all go on.
package suspend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vps/remote"
)

// Group is the part of an instance's cgroup that stopping it needs.
type Group interface {
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Frozen() (bool, error)
	Procs() ([]int, error) // the processes of the whole subtree, as pids here
}

// Network is what an instance is connected to. While the instance stands still, nothing that comes for it is lost, or answered by
// anybody else.
type Network interface {
	Hold() error    // what arrives is kept from now on
	Silence() error // and so is what is sent: no task runs any more
	Release() error // everything goes on, after what was kept
}

// noNetwork is that of an instance which is connected to nothing.
type noNetwork struct{}

func (noNetwork) Hold() error    { return nil }
func (noNetwork) Silence() error { return nil }
func (noNetwork) Release() error { return nil }

func orNone(n Network) Network {
	if n == nil {
		return noNetwork{}
	}
	return n
}

// Instance is a stopped instance.
type Instance struct {
	Tracer    *remote.Tracer
	Processes []*Process // parents before their children where both are known
	group     Group
	families  []family // of all processes
	Suspended bool     // it was suspended when it was found
}

// Process is a stopped process, or a zombie.
type Process struct {
	Host    int // its pid here
	PidFD   int
	Zombie  bool
	Threads []*remote.Thread // those that have not ended, the leader's first; none of a zombie
	tids    []int
}

// Hold stops an instance, calls f, and lets it go on; it is left in the freezer if leave says so, or if it was found
// there. What f does must not change an instance that goes on. n may be nil.
func Hold(ctx context.Context, g Group, n Network, leave func() (frozen bool), f func(*Instance) error) error {
	n = orNone(n)
	frozen, err := g.Frozen()
	if err != nil {
		return err
	}
	families, err := still(ctx, g, n, frozen)
	if err != nil {
		return errors.Join(err, undo(g, n, frozen))
	}
	in := &Instance{group: g, Suspended: frozen, families: families}
	defer in.close()
	stays := frozen
	err = remote.Trace(func(t *remote.Tracer) error {
		in.Tracer = t
		err := in.hold(ctx, f)
		stays = frozen || err == nil && leave()
		if stays {
			err = errors.Join(err, g.Freeze(context.WithoutCancel(ctx)))
		}
		return err
	})
	if err != nil {
		return errors.Join(err, undo(g, n, frozen))
	}
	if !stays {
		return n.Release()
	}
	return nil
}

// still freezes the instance, and its network: what arrives is kept before the first task stands still, what is sent after the
// last one does, so that nothing that a task has sent waits without need.
func still(ctx context.Context, g Group, n Network, frozen bool) ([]family, error) {
	if !frozen {
		if err := n.Hold(); err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
	}
	families, err := freeze(ctx, g, frozen)
	if err != nil {
		return nil, err
	}
	if err := n.Silence(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	return families, nil
}

// vforkPatience is how long an instance may be in the middle of a vfork(2), with interruptions, before that is an error.
const vforkPatience = 2 * time.Second

// freeze freezes the instance at a moment at which no parent waits in vfork(2): nobody could stop that one before its
// child executes a program or ends.
func freeze(ctx context.Context, g Group, frozen bool) ([]family, error) {
	for end := time.Now().Add(vforkPatience); ; {
		if err := freezeSoon(ctx, g); err != nil {
			return nil, err
		}
		families, err := readFamilies(g)
		if err != nil {
			return nil, err
		}
		parent, err := vforking(families)
		if err != nil || parent == 0 {
			return families, err
		}
		if frozen || time.Now().After(end) {
			return nil, fmt.Errorf("%s waits for its child in vfork: %w", taskName(parent), unix.EBUSY)
		}
		if err := g.Thaw(ctx); err != nil {
			return nil, err
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// freezeSoon freezes the instance, and says which task it is that does not let it.
func freezeSoon(ctx context.Context, g Group) error {
	begin := time.Now()
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := g.Freeze(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		if tid := sleeper(g); tid != 0 {
			return stuck(tid, time.Since(begin))
		}
	}
	return err
}

// vforking returns a task that waits in vfork(2); 0: there is none.
func vforking(families []family) (int, error) {
	for _, f := range families {
		for _, tid := range f.parents {
			if waits, err := remote.WaitsInVfork(tid); waits || err != nil {
				return tid, err
			}
		}
	}
	return 0, nil
}

// Freeze lets the freezer take over already, for an instance that was suspended when it was found: should we die, it stays
// so. No batch can run any more.
func (in *Instance) Freeze(ctx context.Context) error { return in.group.Freeze(ctx) }

// undo brings the freezer and the network back to the state in which they were found.
func undo(g Group, n Network, frozen bool) error {
	if frozen {
		return g.Freeze(context.Background())
	}
	return Resume(context.Background(), g, n)
}

func (in *Instance) hold(ctx context.Context, f func(*Instance) error) error {
	in.find()
	for _, p := range in.Processes {
		if err := in.seize(p); err != nil {
			return err
		}
	}
	for _, p := range in.Processes {
		for _, th := range p.Threads {
			if err := th.WaitStop(); errors.Is(err, remote.ErrStuck) {
				return stuck(th.TID, in.Tracer.Patience)
			} else if err != nil {
				return fmt.Errorf("%s: %w", taskName(th.TID), err)
			}
		}
	}
	if err := in.group.Thaw(ctx); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	for _, p := range in.Processes {
		for _, th := range p.Threads {
			if err := th.PutBack(); err != nil {
				return err
			}
		}
	}
	return f(in)
}

// find lists the processes: the group's, and their children that are zombies, which no cgroup lists.
func (in *Instance) find() {
	seen := make(map[int]bool)
	for _, f := range in.families {
		seen[f.pid] = true
		in.Processes = append(in.Processes, &Process{Host: f.pid, PidFD: -1, tids: f.tids})
	}
	for _, f := range in.families {
		for _, child := range f.children {
			if !seen[child] {
				seen[child] = true
				in.Processes = append(in.Processes, &Process{Host: child, PidFD: -1, Zombie: true})
			}
		}
	}
}

// family is a process with its children.
type family struct {
	pid      int
	tids     []int // its threads
	children []int
	parents  []int // the threads that have children
}

// readFamilies reads those of all processes of a group.
func readFamilies(g Group) ([]family, error) {
	pids, err := g.Procs()
	if err != nil {
		return nil, err
	}
	var list []family
	for _, pid := range pids {
		f, err := readFamily(pid)
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}

// Children returns the children of all threads of a process.
func Children(pid int) ([]int, error) {
	f, err := readFamily(pid)
	return f.children, err
}

// readFamily reads /proc/PID/task/TID/children (proc_tid_children(5)) of all threads.
func readFamily(pid int) (family, error) {
	f := family{pid: pid}
	var err error
	if f.tids, err = remote.Tasks(pid); err != nil {
		return f, err
	}
	for _, tid := range f.tids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
		if err != nil {
			return f, err
		}
		fields := strings.Fields(string(text))
		if len(fields) > 0 {
			f.parents = append(f.parents, tid)
		}
		for _, field := range fields {
			child, err := strconv.Atoi(field)
			if err != nil {
				return f, fmt.Errorf("children of process %d: %w", pid, err)
			}
			f.children = append(f.children, child)
		}
	}
	return f, nil
}

func (in *Instance) seize(p *Process) error {
	var err error
	if p.PidFD, err = unix.PidfdOpen(p.Host, 0); err != nil {
		return fmt.Errorf("open process %d: %w", p.Host, err)
	}
	if p.Zombie {
		return nil
	}
	tids := p.tids
	// The leader's first, though a number that was given again may be lower.
	if i := slices.Index(tids, p.Host); i > 0 {
		tids = slices.Insert(slices.Delete(tids, i, i+1), 0, p.Host)
	}
	for _, tid := range tids {
		th, err := in.Tracer.Seize(tid, false)
		if errors.Is(err, unix.ESRCH) {
			continue // the first thread may have ended, and others go on
		}
		if err != nil {
			return fmt.Errorf("%s: %w", taskName(tid), err)
		}
		p.Threads = append(p.Threads, th)
		if err := th.Interrupt(); err != nil {
			return err
		}
	}
	if len(p.Threads) == 0 {
		return fmt.Errorf("%s: %w", taskName(p.Host), remote.ErrGone)
	}
	return nil
}

func (in *Instance) close() {
	for _, p := range in.Processes {
		if p.PidFD >= 0 {
			unix.Close(p.PidFD)
		}
	}
}

// Suspend stops an instance and leaves it in the freezer. n may be nil.
func Suspend(ctx context.Context, g Group, n Network) error {
	return Hold(ctx, g, n, func() bool { return true }, func(*Instance) error { return nil })
}

// Resume lets a suspended instance go on. n may be nil.
func Resume(ctx context.Context, g Group, n Network) error {
	if err := g.Thaw(ctx); err != nil {
		return err
	}
	return orNone(n).Release()
}
