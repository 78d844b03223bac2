package priv

import (
	"fmt"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vps/linux"
)

// lastCall is the highest number that the table was made with knowledge of.
// Later calls are absent, so that what a new kernel brings is no hole.
const lastCall = unix.SYS_RSEQ_SLICE_YIELD

const (
	allow  = unix.SECCOMP_RET_ALLOW
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// Filter compiles the set into a seccomp filter for x86-64. It may be
// installed with or without no_new_privs, see seccomp(2), and never kills.
// System calls of 32-bit and x32 programs, and ones unknown to this program,
// are answered with ENOSYS.
//
// The kernel finds out beforehand which calls a filter always allows and does
// not run it for them (since Linux 5.11, kernel/seccomp.c), so its length
// costs only what it refuses.
func (s *Set) Filter() ([]unix.SockFilter, error) {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: uint32(unsafe.Offsetof(linux.SeccompData{}.Arch)), Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AUDIT_ARCH_X86_64, SkipTrue: 1},
		bpf.RetConstant{Val: enosys},
		bpf.LoadAbsolute{Off: uint32(unsafe.Offsetof(linux.SeccompData{}.Nr)), Size: 4},
		// x32 numbers have bit 30 set.
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: lastCall, SkipTrue: 1},
		bpf.RetConstant{Val: enosys},
	}
	for i, p := range table {
		if s.states[i] == Allow {
			continue
		}
		for _, c := range p.calls {
			refusal := eperm
			if s.states[i] == Nosys || c.absent {
				refusal = enosys
			}
			program = append(program, c.compile(refusal)...)
		}
	}
	program = append(program, bpf.RetConstant{Val: allow})

	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("compile seccomp filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

// compile expects the call's number in the accumulator, and leaves it there
// unless it decides.
func (c call) compile(refusal uint32) []bpf.Instruction {
	if c.when == nil {
		return []bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.number, SkipTrue: 1},
			bpf.RetConstant{Val: refusal},
		}
	}
	// Flags and families are ints: the kernel ignores the high half.
	args := uint32(unsafe.Offsetof(linux.SeccompData{}.Args))
	test := bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.when.value, SkipTrue: 1}
	if c.when.mask != 0 {
		test = bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: c.when.mask, SkipTrue: 1}
	}
	return []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.number, SkipTrue: 4},
		bpf.LoadAbsolute{Off: args + 8*c.when.arg, Size: 4},
		test,
		bpf.RetConstant{Val: refusal},
		bpf.RetConstant{Val: allow},
	}
}
