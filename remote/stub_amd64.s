#include "textflag.h"

// The stub: what runs in a process of ours, or in one that we have entered, instead of a program.
// It is position independent, uses no stack, and is copied out of here to the first page of an Arena.
//
//	r15  its slot (batch page)        rbx  the running entry       r14  entries left
//	ebp  number of the running call   rsp  argument 0: rt_sigreturn finds its frame there,
//	                                       and a child of clone3 finds its own slot
//
// The child of a clone3 must read nothing of its parent's slot, which may hold the next batch already:
// hence the number in ebp. Offsets are those of slot.go.
TEXT ·stub(SB), NOSPLIT|NOFRAME, $0
wait:
	MOVL 12(R15), CX             // spin
spin:
	MOVL (R15), DX
	CMPL DX, $1
	JEQ  run
	PAUSE
	DECL CX
	JGT  spin
	MOVL $202, AX                // futex(slot, FUTEX_WAIT, state, no limit)
	MOVQ R15, DI
	XORL SI, SI
	XORL R10, R10
	SYSCALL
	JMP  wait

run:
	LEAQ 64(R15), BX
	MOVL 4(R15), R14             // count
next:
	TESTL R14, R14
	JEQ   done
	MOVL  (BX), AX
	MOVL  AX, BP
	MOVQ  8(BX), DI
	MOVQ  16(BX), SI
	MOVQ  24(BX), DX
	MOVQ  32(BX), R10
	MOVQ  40(BX), R8
	MOVQ  48(BX), R9
	MOVQ  DI, SP
	SYSCALL
	TESTQ AX, AX
	JNE   store
	CMPL  BP, $435               // clone3 answers 0 in the child
	JEQ   child
store:
	MOVQ  AX, 56(BX)
	MOVL  4(BX), CX
	MOVL  CX, DX
	ANDL  $0x3fffffff, DX
	JEQ   check
	MOVQ  AX, (R15)(DX*1)        // the result is an argument of a later entry
check:
	CMPQ  AX, $-4095
	JCS   good
	TESTL CX, CX
	JPL   done                   // bit 31: errors are ignored
good:
	ADDQ  $64, BX
	DECL  R14
	JMP   next

child:
	MOVQ SP, R15
	JMP  wait

done:
	MOVL R14, 16(R15)            // left
	MOVL 8(R15), CX              // mode
	CMPL CX, $1
	JEQ  loop
	CMPL CX, $2
	JEQ  mortal
finish:
	MOVL $2, (R15)
	MOVL $202, AX                // futex(slot, FUTEX_WAKE, 1)
	MOVQ R15, DI
	MOVL $1, SI
	MOVL $1, DX
	SYSCALL
	CMPL 8(R15), $3
	JNE  wait

	// Heal: the tracer is to take us away from here. If it died, go back to what was interrupted.
	// No call with a time limit: that would overwrite the interrupted call's restart block.
	MOVL 12(R15), BX
heal:
	CMPL (R15), $1
	JEQ  run
	MOVL $24, AX                 // sched_yield: other threads may not be ready yet
	SYSCALL
	DECL BX
	JGT  heal
	MOVQ 24(R15), SP
	MOVL $15, AX                 // rt_sigreturn
	SYSCALL

loop:
	TESTL R14, R14
	JEQ   run
	JMP   finish

mortal:
	TESTL R14, R14
	JEQ   finish
	MOVL  $231, AX               // exit_group(127)
	MOVL  $127, DI
	SYSCALL

	// The end mark.
	BYTE $0x76; BYTE $0x70; BYTE $0x73; BYTE $0x21; BYTE $0x73; BYTE $0x74; BYTE $0x75; BYTE $0x62
	RET

// stubAddress returns where the stub's code lies in our own text.
TEXT ·stubAddress(SB), NOSPLIT, $0-8
	LEAQ ·stub(SB), AX
	MOVQ AX, ret+0(FP)
	RET
