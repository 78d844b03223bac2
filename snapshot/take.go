package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/object/ipc"
	"vps/object/memory"
	"vps/object/task"
	"vps/object/tty"
	"vps/pager"
	"vps/remote"
	"vps/suspend"
)

// slotSize is that of a thread's slot: its questions, their answers, and a signal frame with all extended state.
const slotSize = 64 << 10

// taker takes one stopped instance apart.
type taker struct {
	ctx      context.Context
	src      *Source
	w        *dump.Writer
	memory   *pager.Copy
	in       *suspend.Instance
	ids      object.IDMaps
	procs    []*process
	inside   map[int]int // pids and tids from here to inside
	shared   *object.Sharings
	files    *file.Descriptors
	ipc      *ipc.Objects
	filters  *task.Seccomps
	threads  int
	writing  bool // the writer has been given something
	settings settings
	clock    *clock
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
	t.filters, t.shared = task.NewSeccomps(t.src.Filters), object.NewSharings()
	if err := t.find(); err != nil {
		return err
	}
	t.clock.done("find")
	for _, p := range t.procs {
		if err := t.examine(p); err != nil {
			return nameOf(p.Proc, err)
		}
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
	if err := t.files.Busy(); err != nil {
		return err
	}
	t.clock.done("examine")
	if t.in.Suspended {
		if err := t.in.Freeze(t.ctx); err != nil {
			return err
		}
	}
	t.writing = true
	if err := t.write(); err != nil {
		return err
	}
	t.clock.done("write")
	err = t.pages()
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

// examine reads a process, and asks it.
func (t *taker) examine(p *process) error {
	var err error
	if p.status, err = object.ReadStatus(p.Task()); err != nil {
		return err
	}
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
	if err := t.places(p); err != nil {
		return err
	}
	if p.memory, err = memory.ReadAddressSpace(p.Proc); err != nil {
		return err
	}
	if err := t.shared.Fill(p.record, p.Proc); err != nil {
		return err
	}
	id := uint64(p.PID)
	if p.record.Mm == id {
		if p.mm, err = p.memory.Dump(id, t.files); err != nil {
			return err
		}
	}
	if err := t.endedThread(p); err != nil {
		return err
	}
	for _, th := range p.held.Threads {
		record, err := t.thread(p, th)
		if err != nil {
			return fmt.Errorf("task %d: %w", th.TID, err)
		}
		p.tasks = append(p.tasks, record)
		p.record.Threads = append(p.record.Threads, record.GetTid())
	}
	if err := t.ownThings(p); err != nil {
		return err
	}
	pending, err := p.held.Threads[0].Pending(true)
	if err != nil {
		return err
	}
	var stop bool
	if p.record.Pending, stop = task.SplitStop(pending); stop {
		p.record.State = dump.Process_STOPPED
	}
	p.record.Timers, err = task.DumpTimers(p.Task(), t.insideTID)
	if err != nil {
		return err
	}
	return t.ask(p)
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

// insideTID translates the tid of a thread that has been read.
func (t *taker) insideTID(tid int) (int, error) {
	inside, ok := t.inside[tid]
	if !ok {
		return 0, fmt.Errorf("timer: task %d is no thread of the instance", tid)
	}
	return inside, nil
}

// thread reads what can be seen of a thread from outside.
func (t *taker) thread(p *process, th *remote.Thread) (*dump.Thread, error) {
	t.threads++
	status := p.status
	if th.TID != p.Task() {
		var err error
		if status, err = object.ReadStatus(th.TID); err != nil {
			return nil, err
		}
	}
	record, err := task.DumpThread(status, t.ids)
	if err != nil {
		return nil, err
	}
	t.inside[th.TID] = int(record.GetTid())
	record.Pid = uint32(p.PID)
	regs, err := th.Registers()
	if err != nil {
		return nil, err
	}
	if regs.Compat() {
		return nil, &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "a 32-bit task"}
	}
	record.Regs = regs.Record()
	if record.Xstate, err = th.XState(); err != nil {
		return nil, err
	}
	if record.Sigmask, err = th.SigMask(); err != nil {
		return nil, err
	}
	pending, err := th.Pending(false)
	if err != nil {
		return nil, err
	}
	var stop bool
	if record.Pending, stop = task.SplitStop(pending); stop {
		p.record.State = dump.Process_STOPPED
	}
	rseq, err := th.Rseq()
	if err != nil {
		return nil, err
	}
	if rseq.Address != 0 {
		record.Rseq = &dump.Rseq{Address: rseq.Address, Size: rseq.Size, Signature: rseq.Signature, Flags: rseq.Flags}
	}
	programs, flags, err := th.Filters()
	if err != nil {
		return nil, err
	}
	filters := make([]task.SeccompFilter, len(programs))
	for i := range programs {
		filters[i] = task.SeccompFilter{Program: programs[i], Flags: flags[i]}
	}
	return record, t.filters.Add(record, filters)
}

// ask lets the process answer what only it can tell, in one batch for each of its threads.
func (t *taker) ask(p *process) error {
	start, end := p.memory.VDSO()
	leader := p.held.Threads[0]
	live, err := remote.Enter(leader, p.PidFD, start, end, len(p.held.Threads), slotSize)
	if err != nil {
		return err
	}
	var answers []func() error
	jobs := make([]remote.Job, len(p.held.Threads))
	for i, th := range p.held.Threads {
		b := live.Arena.Page(i).Batch()
		jobs[i] = remote.Job{Thread: th, Batch: b}
		answer := task.AskThread(b)
		answers = append(answers, func() error { return answer(p.tasks[i]) })
	}
	b := jobs[0].Batch
	process := task.AskProcess(b)
	answers = append(answers, func() error { return process(p.record) }, task.AskTimers(b, p.record.GetTimers()))
	if id := uint64(p.PID); p.record.SigHand == id {
		p.hand = &dump.SigHand{Id: id}
		hand := task.AskSigHand(b)
		answers = append(answers, func() error { return hand(p.hand) })
	}
	if p.mm != nil {
		mm := memory.Ask(b)
		answers = append(answers, func() error { return mm(p.mm) })
	}
	open, more, err := t.askObjects(jobs, p)
	if err != nil {
		return errors.Join(err, live.Leave())
	}
	answers = append(answers, open)
	err = live.Run(t.ctx, jobs)
	for _, answer := range answers {
		if err == nil {
			err = answer()
		}
	}
	for err == nil && more {
		for i := range jobs {
			jobs[i].Batch = live.Arena.Page(i).Batch()
		}
		if open, more, err = t.askObjects(jobs, p); err == nil {
			asked := slices.DeleteFunc(slices.Clone(jobs), func(j remote.Job) bool { return j.Batch.Len() == 0 })
			err = errors.Join(live.Run(t.ctx, asked), open())
		}
	}
	if lerr := live.Leave(); err == nil {
		err = lerr
	}
	return err
}
