package remote

import (
	"bytes"
	"unsafe"
)

func stub()
func stubAddress() uintptr

var _ = stub // the assembler refers to it

// stubEnd marks the end of the stub's code in the text segment.
var stubEnd = []byte("vps!stub")

// stubCode returns the stub's machine code.
func stubCode() []byte {
	address := stubAddress()
	text := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&address))), 1024)
	return text[:bytes.Index(text, stubEnd)]
}

// loader returns a static program that maps the arena, which is its descriptor 3, at base and enters the stub
// there with the given slot: what the first stub is born from (System V ABI, ELF-64 object file format).
func loader(base, size, slot uint64) []byte {
	const (
		vaddr  = 0x10000
		header = 64 + 56
	)
	code := []byte{}
	imm64 := func(op ...byte) func(uint64) {
		return func(v uint64) {
			code = append(code, op...)
			for i := range 8 {
				code = append(code, byte(v>>(8*i)))
			}
		}
	}
	imm64(0x48, 0xbf)(base)                                 // mov rdi, base
	imm64(0x48, 0xbe)(size)                                 // mov rsi, size
	code = append(code, 0xba, 7, 0, 0, 0)                   // mov edx, PROT_READ|PROT_WRITE|PROT_EXEC
	code = append(code, 0x41, 0xba, 0x01, 0x00, 0x10, 0x00) // mov r10d, MAP_SHARED|MAP_FIXED_NOREPLACE
	code = append(code, 0x41, 0xb8, 3, 0, 0, 0)             // mov r8d, 3
	code = append(code, 0x45, 0x31, 0xc9)                   // xor r9d, r9d
	code = append(code, 0xb8, 9, 0, 0, 0, 0x0f, 0x05)       // mov eax, mmap; syscall
	imm64(0x49, 0xbf)(slot)                                 // mov r15, slot
	imm64(0x48, 0xb8)(base)                                 // mov rax, base
	code = append(code, 0xff, 0xe0)                         // jmp rax
	elf := make([]byte, header, header+len(code))
	copy(elf, "\x7fELF\x02\x01\x01")
	put := func(at, width int, v uint64) {
		for i := range width {
			elf[at+i] = byte(v >> (8 * i))
		}
	}
	put(16, 2, 2)                        // e_type ET_EXEC
	put(18, 2, 62)                       // e_machine EM_X86_64
	put(20, 4, 1)                        // e_version
	put(24, 8, vaddr+header)             // e_entry
	put(32, 8, 64)                       // e_phoff
	put(52, 2, 64)                       // e_ehsize
	put(54, 2, 56)                       // e_phentsize
	put(56, 2, 1)                        // e_phnum
	put(64, 4, 1)                        // p_type PT_LOAD
	put(68, 4, 5)                        // p_flags PF_R|PF_X
	put(80, 8, vaddr)                    // p_vaddr
	put(88, 8, vaddr)                    // p_paddr
	put(96, 8, uint64(header+len(code))) // p_filesz
	put(104, 8, uint64(header+len(code)))
	put(112, 8, 4096)
	return append(elf, code...)
}

// TaskSize is the end of a process's addresses with four levels of page tables (arch/x86/include/asm/page_64_types.h).
const TaskSize = 0x7ffffffff000
