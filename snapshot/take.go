package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
	"vps/object/aio"
	"vps/object/file"
	"vps/object/ipc"
	"vps/object/memory"
	"vps/object/network"
	"vps/object/task"
	"vps/object/tty"
	"vps/pager"
	"vps/remote"
	"vps/suspend"
)

// taker takes one stopped instance apart.
type taker struct {
	ctx      context.Context
	src      *Source
	w        *dump.Writer
	memory   *pager.Copy
	in       *suspend.Instance
	ids      object.IDMaps
	procs    []*process
	inside   map[int]int // pids from here to inside
	mu       sync.Mutex  // of files and shared
	shared   *object.Sharings
	files    *file.Descriptors
	mapped   *memory.Files
	ipc      *ipc.Objects
	filters  *task.Seccomps
	threads  int
	writing  bool // the writer has been given something
	settings settings
	network  network.Stack
	clock    *clock
	facts    *task.Facts // nil: all is asked
}

// process is a process with what was asked of it.
type process struct {
	object.Proc
	held   *suspend.Process
	status *object.Status
	memory *memory.AddressSpace
	record *dump.Process
	mm     *dump.Mm      // nil: another process's record has it, too
	hand   *dump.SigHand // nil: likewise
	tasks  []*dump.Thread
	ended  *dump.Thread // the first one, if it has ended
	own    []ownThread
	seized []*seized
}

// Put and Memory make a taker the sink of the objects.
func (t *taker) Put(id uint64, m proto.Message) error { return t.w.Put(id, m) }

// Memory writes the content of a Memory record.
func (t *taker) Memory(id uint64, r io.ReaderAt, size int64) error {
	return t.memory.File(t.ctx, id, r, size)
}

func (t *taker) close() {
	for _, p := range t.procs {
		p.Close()
		for _, th := range p.own {
			th.Close()
		}
	}
}

func (t *taker) take() error {
	var err error
	if t.ids, err = object.ReadIDMaps(t.src.Init); err != nil {
		return err
	}
	stack := later(func() (network.Stack, error) { return network.Read(t.src.Init) })
	defer stack()
	t.filters, t.shared = task.NewSeccomps(t.src.Filters), object.NewSharings()
	if err := t.find(); err != nil {
		return err
	}
	t.clock.done("find")
	if err := t.examine(); err != nil {
		return err
	}
	records := make(map[uint64]*dump.Process)
	for _, p := range t.procs {
		records[uint64(p.PID)] = p.record
	}
	if err := planTree(records); err != nil {
		return err
	}
	if err := t.undos(); err != nil {
		return err
	}
	if t.network, err = stack(); err != nil {
		return err
	}
	if err := t.files.Busy(); err != nil {
		return err
	}
	for _, p := range t.procs {
		if err := aio.Dump(t.src.Kernel, p.Proc, p.mm); err != nil {
			return err
		}
	}
	t.clock.done("examine")
	if t.in.Suspended {
		if err := t.in.Freeze(t.ctx); err != nil {
			return err
		}
	}
	t.writing = true
	g, ctx := errgroup.WithContext(t.ctx)
	laid := make(chan struct{})
	g.Go(func() error { return t.memory.Freeze(ctx, laid) })
	err = t.write()
	t.clock.done("write")
	if err != nil {
		g.Go(func() error { return err }) // it ends the copying too
	} else {
		close(laid)
	}
	err = g.Wait()
	t.clock.done("pages")
	return err
}

// find opens the processes and puts them in the order of their pids inside.
func (t *taker) find() error {
	level, err := object.ReadLevel(t.src.Init)
	if err != nil {
		return err
	}
	t.inside = make(map[int]int)
	for _, held := range t.in.Processes {
		p, err := object.OpenProc(held.Host, level)
		if err != nil {
			return err
		}
		t.procs = append(t.procs, &process{Proc: p, held: held})
		t.inside[p.Host] = p.PID
	}
	slices.SortFunc(t.procs, func(a, b *process) int { return a.PID - b.PID })
	procs := t.living()
	t.files = t.src.descriptors(procs, t)
	t.mapped = memory.NewFiles(t.files)
	t.ipc, err = ipc.Read(t.files)
	return err
}

// living returns the processes that are no zombies.
func (t *taker) living() []object.Proc {
	var procs []object.Proc
	for _, p := range t.procs {
		if !p.held.Zombie {
			procs = append(procs, p.Proc)
		}
	}
	return procs
}

// examine reads the processes and asks them. What can be read in /proc is read at the same time as the tracer reads what only it can.
func (t *taker) examine() error {
	if t.src.Facts != nil {
		var err error
		if t.facts, err = t.src.Facts.Read(); err != nil {
			return fmt.Errorf("facts about tasks: %w", err)
		}
	}
	read := make(chan error, len(t.procs)) // one for each process, in their order
	looked := make(chan error, 1)
	go func() {
		defer close(looked)
		for i, err := range t.readAll() {
			p := t.procs[i]
			if err == nil && !p.held.Zombie {
				err = t.refer(p)
			}
			read <- nameOf(p.Proc, err)
			if err != nil {
				return
			}
		}
		looked <- t.look()
	}()
	err := t.askAll(read)
	return cmp.Or(err, <-looked)
}

// readAll reads all processes, on all processors, and tells of each in their order.
func (t *taker) readAll() iter.Seq2[int, error] {
	results := make([]chan error, len(t.procs))
	for i := range results {
		results[i] = make(chan error, 1)
	}
	var begun atomic.Int32
	var stopped atomic.Bool
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for i := int(begun.Add(1)) - 1; i < len(t.procs); i = int(begun.Add(1)) - 1 {
				var err error
				if !stopped.Load() {
					err = t.read(t.procs[i])
				}
				results[i] <- err
			}
		}()
	}
	return func(yield func(int, error) bool) {
		for i, result := range results {
			err := <-result // so that nobody reads any more in the end
			if !stopped.Load() && !yield(i, err) {
				stopped.Store(true)
			}
		}
	}
}

// look finds what has to be copied of the memory of all processes.
func (t *taker) look() error {
	spaces := make(map[uint64]*pager.Space)
	for _, p := range t.procs {
		if p.held.Zombie {
			continue
		}
		id := p.record.GetMm()
		if spaces[id] == nil {
			spaces[id] = p.memory.Space(id)
		}
		if s := spaces[id]; t.memory.Tracks(id) && !s.Direct {
			var err error
			if s.Direct, err = writesDirectly(p.Proc); err != nil {
				return nameOf(p.Proc, err)
			}
		}
	}
	for _, p := range t.procs {
		if p.mm == nil {
			continue
		}
		guards, err := t.memory.Look(t.ctx, spaces[p.mm.GetId()])
		if err == nil {
			err = p.memory.Guard(p.mm, guards)
		}
		if err != nil {
			return nameOf(p.Proc, err)
		}
	}
	return nil
}

// askAll asks each process that has been read.
func (t *taker) askAll(read <-chan error) error {
	for _, p := range t.procs {
		for i, th := range p.held.Threads {
			s, err := seize(th, i == 0)
			if errors.Is(err, remote.ErrDispatch) {
				return &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "system call user dispatch"}
			}
			if err != nil {
				return nameOf(p.Proc, fmt.Errorf("task %d: %w", th.TID, err))
			}
			p.seized = append(p.seized, s)
		}
	}
	for _, p := range t.procs {
		if err := <-read; err != nil {
			return err
		}
		if p.held.Zombie {
			continue
		}
		if err := t.merge(p); err != nil {
			return nameOf(p.Proc, err)
		}
		if err := t.ask(p); err != nil {
			return nameOf(p.Proc, err)
		}
	}
	return nil
}

// read reads what /proc tells of a process.
func (t *taker) read(p *process) error {
	var err error
	p.status = p.Status
	if p.record, err = task.DumpProcess(p.status); err != nil {
		return err
	}
	p.record.Pid = uint32(p.PID)
	p.record.Ppid = uint32(t.inside[p.status.PPID])
	p.record.ExternalParent = p.record.Ppid == 0 && p.PID != 1
	if p.held.Zombie {
		return nil
	}
	if err := task.DumpAttributes(p.record, p.Task(), t.ids); err != nil {
		return err
	}
	if signal := p.held.Threads[0].Stopped; signal != 0 {
		p.record.State, p.record.StopSignal = dump.Process_STOPPED, uint32(signal)
	}
	if p.memory, err = t.src.Flags.Read(p.Proc); err != nil {
		return err
	}
	if err := t.readThreads(p); err != nil {
		return err
	}
	if err := t.endedThread(p); err != nil {
		return err
	}
	inside := make(map[int]int)
	for i, th := range p.held.Threads {
		inside[th.TID] = int(p.tasks[i].GetTid())
		p.record.Threads = append(p.record.Threads, p.tasks[i].GetTid())
	}
	p.record.Timers, err = task.DumpTimers(p.Task(), func(tid int) (int, error) {
		if inside[tid] == 0 {
			return 0, fmt.Errorf("timer: task %d is none of its threads", tid)
		}
		return inside[tid], nil
	})
	return err
}

// refer notes what files a process refers to.
func (t *taker) refer(p *process) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.places(p); err != nil {
		return err
	}
	if err := t.shared.Fill(p.record, p.Proc); err != nil {
		return err
	}
	if err := t.ownThings(p); err != nil {
		return err
	}
	var err error
	if id := uint64(p.PID); p.record.Mm == id {
		p.mm, err = p.memory.Dump(id, t.mapped)
	}
	return err
}

// undos notes what the ends of the processes do to semaphores.
func (t *taker) undos() error {
	undos, err := t.ipc.Undos(t.src.Kernel, t.living())
	for _, p := range t.procs {
		p.record.SemUndos = undos[p.Host]
	}
	return err
}

// places notes where the process stands: its directories, its controlling terminal.
func (t *taker) places(p *process) error {
	var err error
	if p.record.Root, p.record.Cwd, err = t.directories(p.Proc); err != nil {
		return err
	}
	stat, err := object.ReadStat(p.Task())
	if err != nil {
		return err
	}
	p.record.Tty, err = tty.Controlling(stat.TTY)
	return err
}

// directories notes root and current directory of a process, or of the thread that shows it.
func (t *taker) directories(p object.Proc) (root, cwd *dump.FileRef, err error) {
	if cwd, err = t.link(p, "cwd"); err != nil {
		return nil, nil, err
	}
	if root, err = t.link(p, "root"); err != nil {
		return nil, nil, err
	}
	if root.GetProcess() != 0 {
		return nil, nil, &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "root directory " + root.GetPath()}
	}
	return root, cwd, nil
}

// link notes the file that a link of the process's /proc directory leads to.
func (t *taker) link(p object.Proc, name string) (*dump.FileRef, error) {
	link := fmt.Sprintf("/proc/%d/%s", p.Task(), name)
	path, err := os.Readlink(link)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(link, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ref, err := t.files.Refer(f, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return ref, nil
}

// threadsAtOnce is how many threads one goroutine reads.
const threadsAtOnce = 64

// readThreads reads what /proc tells of the threads of a process.
func (t *taker) readThreads(p *process) error {
	p.tasks = make([]*dump.Thread, len(p.held.Threads))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for first := 0; first < len(p.tasks); first += threadsAtOnce {
		g.Go(func() error {
			for i := first; i < min(first+threadsAtOnce, len(p.tasks)); i++ {
				tid := p.held.Threads[i].TID
				var err error
				if p.tasks[i], err = t.thread(p, tid); err != nil {
					return fmt.Errorf("task %d: %w", tid, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// thread reads what /proc tells of a thread.
func (t *taker) thread(p *process, tid int) (*dump.Thread, error) {
	status := p.status
	if tid != p.Task() {
		var err error
		if status, err = object.ReadStatus(tid); err != nil {
			return nil, err
		}
	}
	record, err := task.DumpThread(status, t.ids)
	if err != nil {
		return nil, err
	}
	record.Pid = uint32(p.PID)
	return record, nil
}
