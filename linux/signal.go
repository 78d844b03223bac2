package linux

import "structs"

// Signal numbers and flags of the kernel's own interface (include/uapi/asm-generic/signal.h).
const (
	NSIG        = 64
	SigsetSize  = 8   // sizeof(sigset_t): what the rt_ calls want as sigsetsize
	SiginfoSize = 128 // SI_MAX_SIZE, include/uapi/asm-generic/siginfo.h
)

// How the end of a POSIX timer is told (include/uapi/asm-generic/siginfo.h).
const (
	SIGEV_SIGNAL    = 0
	SIGEV_NONE      = 1
	SIGEV_THREAD    = 2
	SIGEV_THREAD_ID = 4
)

// Sigaction is the kernel's struct sigaction of x86-64 (include/linux/signal_types.h), which rt_sigaction(2) takes.
type Sigaction struct {
	_        structs.HostLayout
	Handler  uint64
	Flags    uint64
	Restorer uint64
	Mask     uint64
}

// Flags of [Stack] (include/uapi/linux/signal.h).
const (
	SS_DISABLE    = 2
	SS_AUTODISARM = 1 << 31
)

// Stack is stack_t of sigaltstack(2) (include/uapi/asm-generic/signal.h).
type Stack struct {
	_     structs.HostLayout
	SP    uint64
	Flags uint32
	_     uint32
	Size  uint64
}

// Sigevent is struct sigevent of timer_create(2) (include/uapi/asm-generic/siginfo.h).
type Sigevent struct {
	_      structs.HostLayout
	Value  uint64
	Signal int32
	Notify int32
	TID    int32
	_      [44]byte
}
