package remote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
)

// Registers are a thread's general registers, struct user_regs_struct.
type Registers struct{ unix.PtraceRegs }

// Codes of an interrupted call, include/linux/errno.h: only a tracer sees them.
const (
	erestartSys          = 512
	erestartNoIntr       = 513
	erestartNoHand       = 514
	erestartRestartBlock = 516
)

// Registers returns the registers of a stopped thread.
func (th *Thread) Registers() (Registers, error) {
	var r Registers
	if err := ptrace(unix.PTRACE_GETREGS, th.TID, 0, uintptr(unsafe.Pointer(&r.PtraceRegs))); err != nil {
		return r, fmt.Errorf("task %d: get registers: %w", th.TID, err)
	}
	return r, nil
}

// SetRegisters sets the registers of a stopped thread.
func (th *Thread) SetRegisters(r Registers) error {
	if err := ptrace(unix.PTRACE_SETREGS, th.TID, 0, uintptr(unsafe.Pointer(&r.PtraceRegs))); err != nil {
		return fmt.Errorf("task %d: set registers: %w", th.TID, err)
	}
	return nil
}

// maxXState bounds the XSAVE area; the largest today, with AMX, is below 12 KiB.
const maxXState = 16 << 10

const ntX86XState = 0x202

// XState returns the XSAVE area of a stopped thread in the standard format.
func (th *Thread) XState() ([]byte, error) {
	if th.tracer.xstate == nil {
		th.tracer.xstate = make([]byte, maxXState)
	}
	buf := th.tracer.xstate
	iov := unix.Iovec{Base: &buf[0], Len: maxXState}
	if err := ptrace(unix.PTRACE_GETREGSET, th.TID, ntX86XState, uintptr(unsafe.Pointer(&iov))); err != nil {
		return nil, fmt.Errorf("task %d: get extended state: %w", th.TID, err)
	}
	return bytes.Clone(buf[:iov.Len]), nil
}

// SetXState sets the XSAVE area of a stopped thread.
func (th *Thread) SetXState(state []byte) error {
	if len(state) == 0 {
		return nil
	}
	iov := unix.Iovec{Base: &state[0], Len: uint64(len(state))}
	if err := ptrace(unix.PTRACE_SETREGSET, th.TID, ntX86XState, uintptr(unsafe.Pointer(&iov))); err != nil {
		return fmt.Errorf("task %d: set extended state: %w", th.TID, err)
	}
	return nil
}

// Compat tells whether the thread runs 32-bit code.
func (r *Registers) Compat() bool { return r.Cs == 0x23 }

// Segmented tells whether the thread uses a segment that a program has described (set_thread_area(2), modify_ldt(2)).
func (r *Registers) Segmented() bool {
	for _, selector := range []uint64{r.Cs, r.Ss, r.Ds, r.Es, r.Fs, r.Gs} {
		const local, index, firstTLS, lastTLS = 4, 3, 12, 14 // SDM, "Segment Selectors"; arch/x86/include/asm/segment.h
		if n := selector >> index; selector&local != 0 || n >= firstTLS && n <= lastTLS {
			return true
		}
	}
	return false
}

// InCall tells whether the thread was stopped in a system call, and in which.
func (r *Registers) InCall() (nr int, ok bool) {
	return int(r.Orig_rax), int64(r.Orig_rax) >= 0
}

// Argument returns argument i of the interrupted call.
func (r *Registers) Argument(i int) uint64 {
	return [...]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}[i]
}

// Restarts tells whether the kernel is to restart the call by itself, with a restart block if block is set.
func (r *Registers) Restarts() (restarts, block bool) {
	if _, ok := r.InCall(); !ok {
		return false, false
	}
	switch -int64(r.Rax) {
	case erestartSys, erestartNoIntr, erestartNoHand:
		return true, false
	case erestartRestartBlock:
		return true, true
	}
	return false, false
}

// Interrupted tells whether the call answers EINTR to a mere stop, which the program must not see: such calls are not
// restarted by the kernel (signal(7), "Interruption of system calls and library functions by stop signals").
func (r *Registers) Interrupted() bool {
	if int64(r.Rax) != -int64(unix.EINTR) {
		return false
	}
	switch int64(r.Orig_rax) {
	case unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_RT_SIGTIMEDWAIT,
		unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_IO_GETEVENTS:
		return true
	}
	return false
}

// Rewind lets the interrupted call be made again from the start.
func (r *Registers) Rewind() {
	r.Rax = r.Orig_rax
	r.Rip -= 2 // the length of the syscall instruction
	r.Orig_rax = ^uint64(0)
}

// Repeat lets the system call with the given number be made from the start, in place of the interrupted one.
func (r *Registers) Repeat(nr uint64) {
	r.Orig_rax = nr
	r.Rewind()
}

// Return lets the interrupted call return a result, or a negative errno.
func (r *Registers) Return(result int64) {
	r.Rax, r.Orig_rax = uint64(result), ^uint64(0)
}

// enter points the registers at the stub in an arena, with the given slot.
func (r *Registers) enter(base, slot uint64) {
	r.Rip, r.R15, r.Rsp = base, slot, slot
	r.Orig_rax = ^uint64(0)
	r.Rax = 0
}

// call points the registers at a syscall instruction.
func (r *Registers) call(at uint64, nr int, args [6]uint64) {
	r.Rip, r.Rax, r.Orig_rax = at, uint64(nr), ^uint64(0)
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = args[0], args[1], args[2], args[3], args[4], args[5]
}

// Record returns the registers as a record.
func (r *Registers) Record() *dump.Registers {
	return &dump.Registers{
		R15: r.R15, R14: r.R14, R13: r.R13, R12: r.R12, Rbp: r.Rbp, Rbx: r.Rbx, R11: r.R11, R10: r.R10, R9: r.R9, R8: r.R8,
		Rax: r.Rax, Rcx: r.Rcx, Rdx: r.Rdx, Rsi: r.Rsi, Rdi: r.Rdi, OrigRax: r.Orig_rax, Rip: r.Rip, Cs: r.Cs,
		Eflags: r.Eflags, Rsp: r.Rsp, Ss: r.Ss, FsBase: r.Fs_base, GsBase: r.Gs_base, Ds: r.Ds, Es: r.Es, Fs: r.Fs, Gs: r.Gs,
	}
}

// FromRecord returns the registers of a record. The kernel refuses segment selectors and flags that a program may not have.
func FromRecord(d *dump.Registers) Registers {
	return Registers{unix.PtraceRegs{
		R15: d.GetR15(), R14: d.GetR14(), R13: d.GetR13(), R12: d.GetR12(), Rbp: d.GetRbp(), Rbx: d.GetRbx(), R11: d.GetR11(),
		R10: d.GetR10(), R9: d.GetR9(), R8: d.GetR8(), Rax: d.GetRax(), Rcx: d.GetRcx(), Rdx: d.GetRdx(), Rsi: d.GetRsi(),
		Rdi: d.GetRdi(), Orig_rax: d.GetOrigRax(), Rip: d.GetRip(), Cs: d.GetCs(), Eflags: d.GetEflags(), Rsp: d.GetRsp(),
		Ss: d.GetSs(), Fs_base: d.GetFsBase(), Gs_base: d.GetGsBase(), Ds: d.GetDs(), Es: d.GetEs(), Fs: d.GetFs(), Gs: d.GetGs(),
	}}
}

// frame returns a signal frame whose rt_sigreturn gives a thread its registers, extended state and signal mask back:
// struct rt_sigframe without its first word (arch/x86/include/asm/sigframe.h, asm/ucontext.h, asm/sigcontext.h).
// at is the frame's address, a multiple of 64.
func frame(at uint64, r Registers, xstate []byte, mask uint64) []byte {
	if restarts, _ := r.Restarts(); restarts || r.Interrupted() {
		r.Rewind() // the kernel restarts nothing behind an rt_sigreturn
	}
	const (
		ucontext = 304 // uc_flags, uc_link, uc_stack, 32 words of sigcontext, uc_sigmask
		legacy   = 512
		magic1   = 0x46505853
		magic2   = 0x46505845
	)
	state := (ucontext + 63) &^ 63
	buf := make([]byte, state+len(xstate)+4)
	put := func(word int, v uint64) { binary.LittleEndian.PutUint64(buf[8*word:], v) }
	put(0, 0x7)  // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
	put(3, 0x77) // ss_flags that are invalid: the alternate stack is left alone
	for i, v := range []uint64{r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.Rdi, r.Rsi, r.Rbp, r.Rbx, r.Rdx,
		r.Rax, r.Rcx, r.Rsp, r.Rip, r.Eflags} {
		put(5+i, v)
	}
	put(23, r.Cs&0xffff|r.Ss&0xffff<<48)
	put(28, at+uint64(state)) // fpstate
	put(37, mask)
	copy(buf[state:], xstate)
	if len(xstate) > legacy+64 {
		// struct _fpx_sw_bytes: tells the kernel that this is a whole XSAVE area.
		sw := buf[state+464:]
		binary.LittleEndian.PutUint32(sw, magic1)
		binary.LittleEndian.PutUint32(sw[4:], uint32(len(xstate)+4))
		binary.LittleEndian.PutUint64(sw[8:], binary.LittleEndian.Uint64(xstate[464:])) // xfeatures, XCR0 as ptrace gives it
		binary.LittleEndian.PutUint32(sw[16:], uint32(len(xstate)))
		binary.LittleEndian.PutUint32(buf[state+len(xstate):], magic2)
	}
	return buf
}
