package remote

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syscallInstruction is what every vDSO contains, as the fallback of its functions.
var syscallInstruction = []byte{0x0f, 0x05}

// Live is a process that we have entered: its stopped threads run batches.
//
// The process shows an anonymous shared mapping more than before, until [Live.Leave]. No signal handler runs meanwhile, no
// breakpoint is set (a trap would change a program's handling of SIGTRAP), and no call of ours has a time limit.
type Live struct {
	Arena   *Arena
	leader  *Thread
	pidfd   int
	syscall uint64 // address of a syscall instruction
}

// FindSyscall returns the address of a syscall instruction in the vDSO of a process, which is mapped at [start, end).
func FindSyscall(pid int, start, end uint64) (uint64, error) {
	if end <= start || end-start > 1<<20 {
		return 0, fmt.Errorf("process %d has no vDSO", pid)
	}
	text := make([]byte, end-start)
	if err := ReadMemory(pid, start, text); err != nil {
		return 0, err
	}
	at := bytes.Index(text, syscallInstruction)
	if at < 0 {
		return 0, fmt.Errorf("process %d: no syscall instruction in its vDSO", pid)
	}
	return start + uint64(at), nil
}

// Enter maps an arena with the given number of slots into the process of a stopped thread.
// vdso is where its vDSO lies; pidfd is its process. The caller calls Leave while the thread is still stopped.
func Enter(leader *Thread, pidfd int, vdsoStart, vdsoEnd uint64, slots, slotSize int) (*Live, error) {
	at, err := FindSyscall(leader.TID, vdsoStart, vdsoEnd)
	if err != nil {
		return nil, err
	}
	l := &Live{leader: leader, pidfd: pidfd, syscall: at}
	saved, err := leader.State()
	if err != nil {
		return nil, err
	}
	defer leader.back(saved)
	size := pageSize + slots*slotSize
	base, code, err := leader.mapLive(at, size)
	if err != nil {
		return nil, fmt.Errorf("enter process: mmap: %w", err)
	}
	if l.Arena, err = openLive(leader.TID, base, code, size, slotSize); err != nil {
		leader.call(at, unix.SYS_MUNMAP, base, uint64(size))
		return nil, fmt.Errorf("enter process: %w", err)
	}
	copy(l.Arena.mem, stubCode())
	return l, nil
}

// mapLive maps the arena. code is the place of its own of the first page, which is executed, in a process that must not have memory
// that can be written and executed (PR_SET_MDWE); else 0.
func (th *Thread) mapLive(at uint64, size int) (base, code uint64, err error) {
	const flags = unix.MAP_SHARED | unix.MAP_ANONYMOUS
	none := ^uint64(0)
	base, err = th.call(at, unix.SYS_MMAP, 0, uint64(size), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, flags|unix.MAP_NORESERVE, none, 0)
	if err != unix.EACCES {
		return base, 0, err
	}
	if base, err = th.call(at, unix.SYS_MMAP, 0, uint64(size), unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_NORESERVE, none, 0); err != nil {
		return 0, 0, err
	}
	if code, err = th.call(at, unix.SYS_MMAP, base, pageSize, unix.PROT_READ|unix.PROT_EXEC, flags|unix.MAP_FIXED, none, 0); err != nil {
		th.call(at, unix.SYS_MUNMAP, base, uint64(size))
	}
	return base, code, err
}

// openLive maps here what is mapped in a process. No task of an instance may reach it so: it cannot be truncated.
func openLive(pid int, base, code uint64, size, slotSize int) (*Arena, error) {
	start, end := base, base+uint64(size)
	if code != 0 {
		file, err := openMapped(pid, code, code+pageSize)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		if _, err := file.WriteAt(stubCode(), 0); err != nil {
			return nil, err
		}
		start += pageSize
	}
	file, err := openMapped(pid, start, end)
	if err != nil {
		return nil, err
	}
	arena, err := mapArena(file, base, size, slotSize)
	if err != nil {
		file.Close()
	}
	return arena, err
}

func openMapped(pid int, start, end uint64) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, start, end), os.O_RDWR, 0)
}

// Leave unmaps the arena. The leader must be stopped.
func (l *Live) Leave() error {
	saved, err := l.leader.State()
	if err != nil {
		return err
	}
	_, err = l.leader.call(l.syscall, unix.SYS_MUNMAP, l.Arena.base, uint64(l.Arena.Size()))
	if berr := l.leader.back(saved); err == nil {
		err = berr
	}
	if cerr := l.Arena.Close(); err == nil {
		err = cerr
	}
	return err
}

// Job is a batch that a stopped thread of the process is to run.
type Job struct {
	Thread *Thread
	Batch  *Batch
}

// atOnce is how many batches run at the same time: a stub that waits for its tracer takes processor time.
const atOnce = 4

// Run lets stopped threads run a batch each, and puts each back to where it was.
// A batch must have room for a signal frame, about 4 to 12 KiB.
func (l *Live) Run(ctx context.Context, jobs []Job) error {
	saved := make([]*State, len(jobs))
	var err error
	begun := 0
	for done := 0; done < begun || err == nil && begun < len(jobs); {
		if err == nil && begun < len(jobs) && begun-done < atOnce {
			if saved[begun], err = jobs[begun].Thread.State(); err == nil {
				if err = l.start(jobs[begun], saved[begun]); err == nil {
					begun++
				}
			}
			continue
		}
		if e := l.finish(ctx, jobs[done], saved[done]); err == nil {
			err = e
		}
		done++
	}
	return err
}

// finish waits for the end of a batch.
func (l *Live) finish(ctx context.Context, job Job, saved *State) error {
	err := job.Batch.Wait(ctx, l.pidfd)
	if err != nil {
		err = fmt.Errorf("task %d: %w", job.Thread.TID, err)
	}
	stop := job.Thread.Interrupt()
	if stop == nil {
		stop = job.Thread.WaitStop()
	}
	if stop == nil {
		stop = job.Thread.put(saved)
	}
	return cmp.Or(err, stop)
}

// healYields is how often a stub that is done gives the processor away before it takes its tracer for dead: about a second.
const healYields = 1 << 21

func (l *Live) start(job Job, s *State) error {
	b := job.Batch
	b.Mode, b.Spin = heal, healYields
	at := b.Space(len(s.XState) + 1024)
	at = (at + 63) &^ 63
	if b.err != nil {
		return b.err
	}
	copy(b.Bytes(at, len(s.XState)+512), frame(uint64(at), s.Registers, s.XState, s.SigMask))
	b.seal()
	b.page.setFrame(uint64(at))
	if err := job.Thread.SetSigMask(^uint64(0)); err != nil {
		return err
	}
	regs := s.Registers
	regs.enter(l.Arena.base, b.page.address)
	if err := job.Thread.SetRegisters(regs); err != nil {
		return err
	}
	b.page.Start()
	return job.Thread.resume(unix.PTRACE_CONT, 0)
}

// State is what a stopped thread was doing before we used it.
type State struct {
	Registers Registers
	XState    []byte
	SigMask   uint64
	Rseq      Rseq
	cs        [8]byte // rseq_cs: the kernel clears it when it finds the thread elsewhere
}

// State returns what the thread was doing when it was stopped. It is read once: whatever batches it runs meanwhile put it back.
func (th *Thread) State() (*State, error) {
	if th.state != nil {
		return th.state, nil
	}
	s := &State{}
	if err := th.checkDispatch(); err != nil {
		return nil, err
	}
	var err error
	if s.Registers, err = th.Registers(); err != nil {
		return nil, err
	}
	if s.XState, err = th.XState(); err != nil {
		return nil, err
	}
	if s.SigMask, err = th.SigMask(); err != nil {
		return nil, err
	}
	if s.Rseq, err = th.Rseq(); err != nil {
		return nil, err
	}
	if s.Rseq.Address != 0 {
		if err := ReadMemory(th.TID, s.Rseq.Address+8, s.cs[:]); err != nil {
			return nil, err
		}
	}
	th.state = s
	return s, nil
}

// put gives the thread, which is stopped where signals are looked for, its registers and mask back.
// The stub does not touch the extended state.
func (th *Thread) put(s *State) error {
	if err := th.SetRegisters(s.Registers); err != nil {
		return err
	}
	if s.cs != [8]byte{} {
		if err := WriteMemory(th.TID, s.Rseq.Address+8, s.cs[:]); err != nil {
			return err
		}
	}
	return th.SetSigMask(s.SigMask)
}

// back is put for a thread that is stopped at the exit of a call: it is stopped anew on its way out of the kernel, where a call
// that the registers show as interrupted is restarted when the thread goes on.
func (th *Thread) back(s *State) error {
	if err := th.Settle(s.Registers); err != nil {
		return err
	}
	return th.put(s)
}

// Settle sets the registers of a thread that is stopped anywhere, and stops it anew on its way out of the kernel.
func (th *Thread) Settle(regs Registers) error {
	if err := th.settle(regs); err != nil {
		return err
	}
	return th.WaitStop()
}

func (th *Thread) settle(regs Registers) error {
	if err := th.SetRegisters(regs); err != nil {
		return err
	}
	if err := th.Interrupt(); err != nil {
		return err
	}
	return th.resume(unix.PTRACE_CONT, 0)
}

// call makes one system call in a stopped thread, by a syscall instruction at the given address.
// The thread is then stopped at its exit: [Thread.Settle] must follow.
func (th *Thread) call(at uint64, nr int, args ...uint64) (uint64, error) {
	if err := th.begin(at, nr, args); err != nil {
		return 0, err
	}
	if err := th.waitSyscall(); err != nil { // stopped at the entry
		return 0, err
	}
	if err := th.resume(unix.PTRACE_SYSCALL, 0); err != nil {
		return 0, err
	}
	return th.result()
}

// begin lets the thread go to the entry of a call.
func (th *Thread) begin(at uint64, nr int, args []uint64) error {
	regs, err := th.Registers()
	if err != nil {
		return err
	}
	var all [6]uint64
	copy(all[:], args)
	regs.call(at, nr, all)
	if err := th.SetSigMask(^uint64(0)); err != nil {
		return err
	}
	if err := th.SetRegisters(regs); err != nil {
		return err
	}
	return th.resume(unix.PTRACE_SYSCALL, 0)
}

// result waits for the exit of a call.
func (th *Thread) result() (uint64, error) {
	if err := th.waitSyscall(); err != nil {
		return 0, err
	}
	regs, err := th.Registers()
	if err != nil {
		return 0, err
	}
	if v := int64(regs.Rax); v < 0 && v > -4096 {
		return 0, unix.Errno(-v)
	}
	return regs.Rax, nil
}

// waitSyscall waits for a stop at the entry or exit of a call.
func (th *Thread) waitSyscall() error {
	for {
		ws, err := th.wait()
		if err != nil {
			return err
		}
		if ws.StopSignal() == unix.SIGTRAP|0x80 {
			return nil
		}
		if err := th.resume(unix.PTRACE_SYSCALL, 0); err != nil {
			return err
		}
	}
}
