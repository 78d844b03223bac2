package remote

import (
	"debug/elf"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
)

// What a core file of this architecture is like. CoreArch is the architecture as uname(2) and a snapshot's header name it.
const (
	CoreArch    = "x86_64"
	CoreMachine = elf.EM_X86_64
)

// CoreRegisters returns the general registers of a record as a core file has them: struct user_regs_struct of
// arch/x86/include/asm/user_64.h.
func CoreRegisters(d *dump.Registers) []byte {
	r := FromRecord(d)
	b := make([]byte, unsafe.Sizeof(unix.PtraceRegs{}))
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&r.PtraceRegs)), len(b)))
	return b
}

// CoreFloatingPoint returns the part of an XSAVE area that is struct user_i387_struct, and the whole of it, as a core
// file has them. They are nil if the area is shorter or longer than one can be.
func CoreFloatingPoint(xstate []byte) (fp, all []byte) {
	const (
		legacy = 512 // FXSAVE area
		header = 64  // of the XSAVE area, behind it
	)
	if len(xstate) < legacy || len(xstate) > maxXState {
		return nil, nil
	}
	if len(xstate) >= legacy+header {
		all = xstate
	}
	return xstate[:legacy], all
}
