package task

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/kmem"
	"vps/linux"
)

// FactReader finds in the kernel's memory what else only tasks themselves can tell. It may be used by several goroutines at once.
type FactReader struct {
	kernel *kmem.Reader

	mu    sync.Mutex
	plain map[taskFlags]bool // see [Facts.Learn]
}

// OpenFacts makes a reader that has shown with our own thread that it finds what the system calls tell.
func OpenFacts(kernel *kmem.Reader) (*FactReader, error) {
	r := &FactReader{kernel: kernel, plain: make(map[taskFlags]bool)}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("facts about tasks: %w", err)
	}
	return r, nil
}

// check compares what is found of the calling thread with what it says itself.
func (r *FactReader) check() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	facts, err := r.Read()
	if err != nil {
		return err
	}
	task, err := facts.Task(unix.Gettid())
	if err != nil {
		return err
	}
	t, hand := &dump.Thread{Creds: &dump.Creds{}}, &dump.SigHand{}
	if _, err := facts.Process(task, &dump.Process{}); err != nil {
		return err
	}
	if _, err := facts.Thread(task, t); err != nil {
		return err
	}
	if err := facts.SigHand(task, hand); err != nil {
		return err
	}
	var stack linux.Stack
	if _, _, errno := unix.RawSyscall(unix.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(&stack)), 0); errno != 0 {
		return fmt.Errorf("sigaltstack: %w", errno)
	}
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("get securebits: %w", err)
	}
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("get timer slack: %w", err)
	}
	a := t.GetAltstack()
	if a.GetSp() != stack.SP || a.GetSize() != stack.Size || t.GetCreds().GetSecurebits() != uint32(bits) || t.GetTimerSlack() != uint64(slack) {
		return fmt.Errorf("thread %d of process %d is not what the kernel's memory shows", unix.Gettid(), os.Getpid())
	}
	return checkActions(hand)
}

// checkActions compares signal actions with our own.
func checkActions(hand *dump.SigHand) error {
	found := make(map[uint32]*dump.SigAction)
	for _, a := range hand.GetActions() {
		found[a.GetSignal()] = a
	}
	for n := uint32(1); n <= linux.NSIG; n++ {
		if unblockable(int(n)) {
			continue
		}
		var own linux.Sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), 0, uintptr(unsafe.Pointer(&own)), linux.SigsetSize, 0, 0)
		if errno != 0 {
			return fmt.Errorf("rt_sigaction: %w", errno)
		}
		a := found[n]
		if own != (linux.Sigaction{Handler: a.GetHandler(), Flags: a.GetFlags(), Restorer: a.GetRestorer(), Mask: a.GetMask()}) {
			return fmt.Errorf("action of %s is not what the kernel's memory shows", signalName(int(n)))
		}
	}
	return nil
}

// Facts are what a [FactReader] finds of tasks that do not run. They belong to one goroutine.
type Facts struct {
	reader *FactReader
	walk   *kmem.Walk
	tasks  map[int]kmem.Value
	bits   map[uint64]uint32 // securebits, by the addresses of credentials
}

// Read finds all tasks of the host.
func (r *FactReader) Read() (*Facts, error) {
	f := &Facts{reader: r, walk: r.kernel.Walk(), bits: make(map[uint64]uint32)}
	f.tasks = f.walk.Tasks()
	return f, f.walk.Err()
}

// Task returns the struct task_struct of a task, by its tid here.
func (f *Facts) Task(tid int) (kmem.Value, error) {
	t, ok := f.tasks[tid]
	if !ok {
		return t, fmt.Errorf("the kernel has no task %d", tid)
	}
	return t.Load(), f.walk.Err()
}

// Thread is [AskThread] without asking; false: nobody with flags like those of the thread has been asked yet.
func (f *Facts) Thread(task kmem.Value, t *dump.Thread) (known bool, err error) {
	stack := &dump.AltStack{Sp: task.Member("sas_ss_sp").Uint(), Size: task.Member("sas_ss_size").Uint()}
	if stack.Flags = uint32(task.Member("sas_ss_flags").Uint()) & linux.SS_AUTODISARM; stack.Size == 0 {
		stack.Flags |= linux.SS_DISABLE
	}
	cred := task.Member("cred").Deref()
	bits, known := f.bits[cred.Address()]
	if !known {
		bits = uint32(cred.Member("securebits").Uint())
		f.bits[cred.Address()] = bits
	}
	t.Altstack, t.Creds.Securebits = stack, bits
	t.TidAddress, t.PdeathSignal = task.Member("clear_child_tid").Uint(), uint32(task.Member("pdeath_signal").Uint())
	t.TimerSlack = task.Member("timer_slack_ns").Uint()
	return f.reader.isPlain(flagsOf(task)), f.walk.Err()
}

// taskFlags are all flags of a task: what [askModes] asks for is in them; where, differs between kernels.
type taskFlags struct{ info, flags, atomic uint64 }

func flagsOf(task kmem.Value) taskFlags {
	return taskFlags{task.Member("thread_info", "flags").Uint(), task.Member("flags").Uint(), task.Member("atomic_flags").Uint()}
}

// Learn takes note that a thread has answered to [AskThread] that the processor treats it as any other.
func (f *Facts) Learn(task kmem.Value, t *dump.Thread) {
	if t.GetTscDisable() || t.GetMceKill() != 0 || len(t.GetSpeculation()) > 0 {
		return
	}
	f.reader.mu.Lock()
	defer f.reader.mu.Unlock()
	f.reader.plain[flagsOf(task)] = true
}

func (r *FactReader) isPlain(flags taskFlags) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.plain[flags]
}

// Process is [AskProcess] without asking; false: the process has timers, and must be asked how much is left of them.
func (f *Facts) Process(task kmem.Value, p *dump.Process) (known bool, err error) {
	signal := task.Member("signal").Deref().Load()
	timers := signal.Member("real_timer", "state").Uint() | signal.Member("it_real_incr").Uint()
	for i := range 2 {
		timer := signal.Member("it").Index(i)
		timers |= timer.Member("expires").Uint() | timer.Member("incr").Uint()
	}
	p.ChildSubreaper = signal.Member("is_child_subreaper").Uint() != 0
	p.Itimers = []*dump.Itimer{{}, {}, {}}
	return timers == 0 && len(p.GetTimers()) == 0, f.walk.Err()
}

// actionFlags are those of a signal action that a program may see (UAPI_SA_FLAGS, include/linux/signal_types.h).
const actionFlags = 0xdc000807

// SigHand is [AskSigHand] without asking.
func (f *Facts) SigHand(task kmem.Value, h *dump.SigHand) error {
	actions := task.Member("sighand").Deref().Load().Member("action")
	for n := 1; n <= linux.NSIG; n++ {
		action := actions.Index(n - 1)
		if unblockable(n) || len(bytes.Trim(action.Raw(), "\x00")) == 0 {
			continue
		}
		a := action.Member("sa")
		h.Actions = append(h.Actions, &dump.SigAction{
			Signal: uint32(n), Handler: a.Member("sa_handler").Uint(), Flags: a.Member("sa_flags").Uint() & actionFlags,
			Restorer: a.Member("sa_restorer").Uint(), Mask: a.Member("sa_mask").Uint(),
		})
	}
	return f.walk.Err()
}
