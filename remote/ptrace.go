package remote

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Tracer holds threads by ptrace(2). All its methods and those of its threads must be called by the function that
// [Trace] runs: ptrace belongs to one OS thread.
type Tracer struct {
	Patience time.Duration // how long a thread may take to stop; then [ErrStuck]
	threads  map[int]*Thread
	stuck    bool // one of them did not
	xstate   []byte
}

// ErrStuck says that a thread did not stop in time: it is in an uninterruptible sleep, or does not leave the kernel.
var ErrStuck = errors.New("does not stop")

const patience = 10 * time.Second

// Trace runs f on an OS thread of its own. Threads that f still holds when it returns go on running.
func Trace(f func(t *Tracer) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- Trace(f) // the main thread cannot be ended
			return
		}
		t := &Tracer{Patience: patience, threads: make(map[int]*Thread)}
		err := f(t)
		if derr := t.detachAll(); err == nil {
			err = derr
		}
		done <- err
		if !t.stuck {
			runtime.UnlockOSThread()
		} // else the OS thread ends here, and with it the kernel lets go of what cannot be detached
	}()
	return <-done
}

func (t *Tracer) detachAll() error {
	var errs []error
	for _, th := range t.threads {
		errs = append(errs, th.Detach())
	}
	return errors.Join(errs...)
}

// Thread is a task held by a [Tracer].
type Thread struct {
	TID     int
	Stopped unix.Signal // the signal that has stopped its process (SIGSTOP, SIGTSTP, ...); 0: it runs
	tracer  *Tracer
	stopped bool
	stuck   bool
	state   *State // see [Thread.State]
}

// Seize takes hold of a thread, which goes on running; its seccomp filters do not apply until it is let go.
// With mortal set it dies with the tracer. ESRCH: it has ended, even if it still shows as a zombie.
func (t *Tracer) Seize(tid int, mortal bool) (*Thread, error) {
	options := uintptr(unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_SUSPEND_SECCOMP)
	if mortal {
		options |= unix.PTRACE_O_EXITKILL
	}
	if err := ptrace(unix.PTRACE_SEIZE, tid, 0, options); err != nil {
		if err == unix.EPERM && ended(tid) {
			err = unix.ESRCH
		}
		return nil, fmt.Errorf("seize task %d: %w", tid, err)
	}
	th := &Thread{TID: tid, tracer: t}
	t.threads[tid] = th
	return th, nil
}

// Interrupt asks the thread to stop; [Thread.WaitStop] waits for it.
func (th *Thread) Interrupt() error {
	if err := ptrace(unix.PTRACE_INTERRUPT, th.TID, 0, 0); err != nil {
		return fmt.Errorf("interrupt task %d: %w", th.TID, err)
	}
	return nil
}

// WaitStop waits until an interrupted thread has stopped on its way out of the kernel, where signals are looked for:
// from there the kernel itself restarts an interrupted call. A signal that comes first is delivered. A thread that does not
// stop within the tracer's patience is ErrStuck; it is let go by the end of the tracer.
func (th *Thread) WaitStop() error {
	for {
		ws, err := th.wait()
		if err != nil {
			return err
		}
		event := ws >> 16
		sig := ws.StopSignal()
		if event == unix.PTRACE_EVENT_STOP {
			if th.Stopped = sig; sig == unix.SIGTRAP {
				th.Stopped = 0
			}
			return nil
		}
		if event != 0 || sig == unix.SIGTRAP|0x80 {
			sig = 0
		}
		if err := th.resume(unix.PTRACE_CONT, sig); err != nil {
			return err
		}
	}
}

// A stop is looked for without delay first, since a tracee on another core takes some microseconds only; then with yields, which
// let one on our own core run; then with sleeps.
const (
	spins  = 20
	yields = 200
)

// wait waits for the next stop of this very thread.
func (th *Thread) wait() (unix.WaitStatus, error) {
	var end time.Time
	pause := 10 * time.Microsecond
	for tries := 0; ; tries++ {
		var status int32
		pid, _, errno := unix.RawSyscall6(unix.SYS_WAIT4, uintptr(th.TID), uintptr(unsafe.Pointer(&status)), unix.WALL|unix.WNOHANG, 0, 0, 0)
		switch {
		case errno != 0 && errno != unix.EINTR:
			return 0, fmt.Errorf("wait for task %d: %w", th.TID, errno)
		case errno == 0 && pid != 0:
			return th.reached(unix.WaitStatus(status))
		case tries < spins:
			spinPause()
			continue
		case tries < spins+yields:
			unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			continue
		case end.IsZero():
			end = time.Now().Add(th.tracer.Patience)
		case time.Now().After(end):
			if state, err := taskState(th.TID); state == 'D' || err != nil || th.tracer.Patience >= patience {
				th.stuck, th.tracer.stuck = true, true
			}
			return 0, fmt.Errorf("task %d: %w within %v", th.TID, ErrStuck, th.tracer.Patience)
		}
		ts := unix.NsecToTimespec(pause.Nanoseconds())
		_ = unix.Nanosleep(&ts, nil) // waking early is as well
		pause = min(2*pause, 5*time.Millisecond)
	}
}

// reached notes what wait(2) told of the thread.
func (th *Thread) reached(ws unix.WaitStatus) (unix.WaitStatus, error) {
	if ws.Exited() || ws.Signaled() {
		delete(th.tracer.threads, th.TID)
		return ws, fmt.Errorf("task %d: %w", th.TID, ErrGone)
	}
	th.stopped = true
	return ws, nil
}

func (th *Thread) resume(request int, sig unix.Signal) error {
	th.stopped = false
	if err := ptrace(request, th.TID, 0, uintptr(sig)); err != nil {
		return fmt.Errorf("continue task %d: %w", th.TID, err)
	}
	return nil
}

// Continue lets a stopped thread run on, still traced.
func (th *Thread) Continue() error {
	th.state = nil
	return th.resume(unix.PTRACE_CONT, 0)
}

// Detach lets the thread go on. One that is stuck goes on with the end of the tracer; another that has not stopped yet does so first,
// lest its call answers EINTR.
func (th *Thread) Detach() error {
	if th.stuck {
		return nil
	}
	if !th.stopped {
		if err := th.Interrupt(); err == nil {
			if err := th.WaitStop(); errors.Is(err, ErrStuck) {
				return err
			} else if err != nil {
				return nil // it has died
			}
			if err := th.PutBack(); err != nil {
				return err
			}
		}
	}
	delete(th.tracer.threads, th.TID)
	if err := ptrace(unix.PTRACE_DETACH, th.TID, 0, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("detach task %d: %w", th.TID, err)
	}
	return nil
}

// SigMask returns the signals that the thread blocks (bit 0: signal 1).
func (th *Thread) SigMask() (uint64, error) {
	var mask uint64
	if err := ptrace(unix.PTRACE_GETSIGMASK, th.TID, 8, uintptr(unsafe.Pointer(&mask))); err != nil {
		return 0, fmt.Errorf("task %d: get signal mask: %w", th.TID, err)
	}
	return mask, nil
}

// SetSigMask sets the signals that the thread blocks.
func (th *Thread) SetSigMask(mask uint64) error {
	if err := ptrace(unix.PTRACE_SETSIGMASK, th.TID, 8, uintptr(unsafe.Pointer(&mask))); err != nil {
		return fmt.Errorf("task %d: set signal mask: %w", th.TID, err)
	}
	return nil
}

// SigInfoSize is the size of siginfo_t, include/uapi/asm-generic/siginfo.h.
const SigInfoSize = 128

// Pending returns the queued signals of the thread, or those of its whole process, as siginfo_t each, oldest first.
func (th *Thread) Pending(process bool) ([][]byte, error) {
	var list [][]byte
	for {
		// struct ptrace_peeksiginfo_args, include/uapi/linux/ptrace.h
		args := struct {
			offset uint64
			flags  uint32
			count  int32
		}{offset: uint64(len(list)), count: 16}
		if process {
			args.flags = unix.PTRACE_PEEKSIGINFO_SHARED
		}
		buf := make([]byte, 16*SigInfoSize)
		n, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_PEEKSIGINFO, uintptr(th.TID),
			uintptr(unsafe.Pointer(&args)), uintptr(unsafe.Pointer(&buf[0])), 0, 0)
		if errno != 0 {
			return nil, fmt.Errorf("task %d: pending signals: %w", th.TID, errno)
		}
		for i := range int(n) {
			list = append(list, buf[i*SigInfoSize:(i+1)*SigInfoSize:(i+1)*SigInfoSize])
		}
		if n == 0 {
			return list, nil
		}
	}
}

// Rseq is the thread's registration for restartable sequences; Address 0: none.
type Rseq struct {
	Address   uint64
	Size      uint32
	Signature uint32
	Flags     uint32
	_         uint32
}

// Rseq returns the registration (PTRACE_GET_RSEQ_CONFIGURATION, Linux 5.13).
func (th *Thread) Rseq() (Rseq, error) {
	var r Rseq
	if err := ptrace(unix.PTRACE_GET_RSEQ_CONFIGURATION, th.TID, unsafe.Sizeof(r), uintptr(unsafe.Pointer(&r))); err != nil {
		return r, fmt.Errorf("task %d: rseq: %w", th.TID, err)
	}
	return r, nil
}

// ErrDispatch says that a thread has its system calls given back to it (PR_SET_SYSCALL_USER_DISPATCH): no batch could run there.
var ErrDispatch = errors.New("system calls are dispatched to the program")

// checkDispatch returns ErrDispatch for such a thread. Before Linux 6.4 that cannot be known.
func (th *Thread) checkDispatch() error {
	var config struct{ mode, selector, offset, length uint64 } // struct ptrace_sud_config, include/uapi/linux/ptrace.h
	err := ptrace(unix.PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, th.TID, unsafe.Sizeof(config), uintptr(unsafe.Pointer(&config)))
	switch {
	case err == nil && config.mode != unix.PR_SYS_DISPATCH_OFF:
		return fmt.Errorf("task %d: %w", th.TID, ErrDispatch)
	case err != nil && err != unix.EIO:
		return fmt.Errorf("task %d: system call dispatch: %w", th.TID, err)
	}
	return nil
}

// Filters returns the thread's seccomp filters (struct sock_filter[]) and their flags, oldest first, as the kernel counts
// them (kernel/seccomp.c, get_nth_filter).
func (th *Thread) Filters() (programs [][]byte, flags []uint32, err error) {
	for i := 0; ; i++ {
		n, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(th.TID), uintptr(i), 0, 0, 0)
		if errno == unix.ENOENT || (errno == unix.EINVAL && i == 0) {
			return programs, flags, nil
		}
		if errno != 0 {
			return nil, nil, fmt.Errorf("task %d: seccomp filter %d: %w", th.TID, i, errno)
		}
		program := make([]byte, 8*n)
		if err := ptrace(unix.PTRACE_SECCOMP_GET_FILTER, th.TID, uintptr(i), uintptr(unsafe.Pointer(&program[0]))); err != nil {
			return nil, nil, fmt.Errorf("task %d: seccomp filter %d: %w", th.TID, i, err)
		}
		// struct seccomp_metadata, include/uapi/linux/ptrace.h
		meta := struct{ off, flags uint64 }{off: uint64(i)}
		if err := ptrace(unix.PTRACE_SECCOMP_GET_METADATA, th.TID, unsafe.Sizeof(meta), uintptr(unsafe.Pointer(&meta))); err != nil {
			return nil, nil, fmt.Errorf("task %d: seccomp filter %d: %w", th.TID, i, err)
		}
		programs, flags = append(programs, program), append(flags, uint32(meta.flags))
	}
}

// ptrace makes the call. What addr and data point to must not move with our stack meanwhile.
//
//go:uintptrescapes
func ptrace(request, tid int, addr, data uintptr) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
