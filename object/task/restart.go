package task

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// restartKinds tells from the name of the kernel's function that goes on with an interrupted call which one it is.
var restartKinds = []struct {
	function string // the name's beginning
	kind     dump.Restart_Kind
}{
	{"hrtimer_nanosleep_restart", dump.Restart_NANOSLEEP},
	{"alarm_timer_nsleep_restart", dump.Restart_NANOSLEEP},
	{"posix_cpu_nsleep_restart", dump.Restart_NANOSLEEP},
	{"do_restart_poll", dump.Restart_POLL},
	{"futex_wait_restart", dump.Restart_FUTEX},
}

// futexCommand is a futex operation without its flags (FUTEX_CMD_MASK, include/uapi/linux/futex.h).
const futexCommand = ^uint64(128 | 256)

// Read tells for threads, by their tids here, with what interrupted call they would go on, and how much of its time is
// left; -1: it has no limit. That holds for a thread that is stopped in a call which ended with ERESTART_RESTARTBLOCK
// (-516 in rax); another thread's is an old one.
func (r *RestartReader) Read(tids []int) (map[int]*dump.Restart, error) {
	wanted := make(map[int]bool, len(tids))
	for _, tid := range tids {
		wanted[tid] = true
	}
	found := make(map[int]*dump.Restart)
	err := r.blocks(func(b restartBlock) {
		if wanted[b.tid] {
			if restart := r.layout.decode(b); restart != nil {
				found[b.tid] = restart
			}
		}
	})
	return found, err
}

// decode makes a record of a restart block; nil if it is of no known call.
func (l *restartLayout) decode(b restartBlock) *dump.Restart {
	word := func(at int32) uint64 { return binary.LittleEndian.Uint64(b.data[at:]) }
	half := func(at int32) int32 { return int32(binary.LittleEndian.Uint32(b.data[at:])) }
	restart := &dump.Restart{Known: true, Clock: unix.CLOCK_MONOTONIC, Remaining: -1}
	end := int64(-1)
	for _, k := range restartKinds {
		if strings.HasPrefix(b.function, k.function) {
			restart.Kind = k.kind
		}
	}
	switch restart.Kind {
	case dump.Restart_NANOSLEEP:
		restart.Clock, restart.Rmtp, end = half(l.clock), word(l.rmtp), int64(word(l.expires))
	case dump.Restart_POLL:
		if half(l.hasTimeout) != 0 {
			end = int64(word(l.sec))*1e9 + int64(word(l.nsec))
		}
	case dump.Restart_FUTEX:
		end = int64(word(l.futexTime))
	default:
		return nil
	}
	if end < 0 {
		return restart
	}
	// The kernel keeps its own times, whatever the thread's time namespace. CPU time is that of another process.
	if restart.Clock < 0 || restart.Clock == unix.CLOCK_PROCESS_CPUTIME_ID || restart.Clock == unix.CLOCK_THREAD_CPUTIME_ID {
		restart.Known = false
		return restart
	}
	var now unix.Timespec
	if err := unix.ClockGettime(restart.Clock, &now); err != nil {
		restart.Known = false
		return restart
	}
	restart.Remaining = max(end-now.Nano(), 0)
	return restart
}

// FullRestart tells the same as [RestartReader.Read] where there is none, or it does not know, from the registers of a stopped thread,
// tid here, and its memory: Known is false, and Remaining the time that was asked for, unless the program wanted
// to be told the rest. The kind is NONE for a call that is simply made again.
func FullRestart(tid int, regs *dump.Registers) (*dump.Restart, error) {
	restart := &dump.Restart{Clock: unix.CLOCK_MONOTONIC}
	limit := uint64(0) // address of the time
	switch regs.GetOrigRax() {
	case unix.SYS_NANOSLEEP:
		restart.Kind, restart.Rmtp, limit = dump.Restart_NANOSLEEP, regs.GetRsi(), regs.GetRdi()
	case unix.SYS_CLOCK_NANOSLEEP:
		if regs.GetRsi()&unix.TIMER_ABSTIME != 0 {
			return &dump.Restart{}, nil
		}
		restart.Kind, restart.Clock = dump.Restart_NANOSLEEP, int32(regs.GetRdi())
		restart.Rmtp, limit = regs.GetR10(), regs.GetRdx()
	case unix.SYS_POLL:
		restart.Kind, restart.Remaining = dump.Restart_POLL, -1
		if ms := int32(regs.GetRdx()); ms >= 0 {
			restart.Remaining = int64(ms) * 1e6
		}
		return restart, nil
	case unix.SYS_FUTEX:
		if regs.GetRsi()&futexCommand != 0 || regs.GetR10() == 0 { // only FUTEX_WAIT counts from now on
			return &dump.Restart{}, nil
		}
		restart.Kind, limit = dump.Restart_FUTEX, regs.GetR10()
	default:
		return &dump.Restart{}, nil
	}
	if restart.Rmtp != 0 {
		restart.Known, limit = true, restart.Rmtp // written when the sleep was interrupted
	}
	var err error
	restart.Remaining, err = readTimespec(tid, limit)
	return restart, err
}

// readTimespec reads a struct timespec of a process, in nanoseconds.
func readTimespec(tid int, address uint64) (int64, error) {
	var ts unix.Timespec
	data := unsafe.Slice((*byte)(unsafe.Pointer(&ts)), unsafe.Sizeof(ts))
	n, err := unix.ProcessVMReadv(tid, []unix.Iovec{{Base: &data[0], Len: uint64(len(data))}},
		[]unix.RemoteIovec{{Base: uintptr(address), Len: len(data)}}, 0)
	if err == nil && n != len(data) {
		err = unix.EFAULT
	}
	if err != nil {
		return 0, fmt.Errorf("read the time of an interrupted call at %#x: %w", address, err)
	}
	if ts.Sec < 0 || ts.Sec > math.MaxInt64/2_000_000_000 || ts.Nsec < 0 || ts.Nsec >= 1e9 {
		return math.MaxInt64 / 2, nil // so far away that it is no matter
	}
	return ts.Nano(), nil
}

// RestoreRestart lets the calling thread of a stub make its interrupted call itself, with the time that is left, as the last
// of its last batch. When a tracer then interrupts it, the kernel has a restart block of its own: rax is -516 again, and the
// thread's registers are set as recorded. If the call ends before, its result is what belongs into rax.
//
// It returns false, and adds nothing, for what needs no such block: then the call is made again with the number
// [RestartNumber].
func RestoreRestart(b *remote.Batch, t *dump.Thread) (remote.Result, bool) {
	restart, regs := t.GetRestart(), t.GetRegs()
	remaining := restart.GetRemaining()
	limit := unix.NsecToTimespec(max(remaining, 1))
	switch restart.GetKind() {
	case dump.Restart_NANOSLEEP:
		return b.Call("go on sleeping", unix.SYS_CLOCK_NANOSLEEP, restart.GetClock(), 0, object.Place(b, &limit), restart.GetRmtp()), true
	case dump.Restart_POLL:
		if remaining < 0 {
			break
		}
		ms := min(remaining/1e6+1, math.MaxInt32)
		return b.Call("go on polling", unix.SYS_POLL, regs.GetRdi(), regs.GetRsi(), ms), true
	case dump.Restart_FUTEX:
		if remaining < 0 || regs.GetRsi()&futexCommand != 0 { // FUTEX_WAIT_BITSET has a point in time, not a length
			break
		}
		return b.Try("go on waiting", unix.SYS_FUTEX, regs.GetRdi(), regs.GetRsi(), regs.GetRdx(), object.Place(b, &limit)), true
	}
	return remote.Result{}, false
}

// RestartNumber returns the system call to make again when [RestoreRestart] does not: the one that a restart_syscall(2)
// stands for.
func RestartNumber(t *dump.Thread) uint64 {
	switch nr := t.GetRegs().GetOrigRax(); {
	case nr != unix.SYS_RESTART_SYSCALL:
		return nr
	case t.GetRestart().GetKind() == dump.Restart_POLL:
		return unix.SYS_POLL
	case t.GetRestart().GetKind() == dump.Restart_FUTEX:
		return unix.SYS_FUTEX
	default:
		return nr
	}
}
