package linux

import (
	"structs"

	"golang.org/x/sys/unix"
)

// Types of the notes in a core file that debug/elf lacks, NT_* of include/uapi/linux/elf.h.
const (
	NT_PRSTATUS   = 1
	NT_PRFPREG    = 2
	NT_PRPSINFO   = 3
	NT_AUXV       = 6
	NT_FILE       = 0x46494c45
	NT_X86_XSTATE = 0x202
)

// ElfPrstatus is struct elf_prstatus_common of include/linux/elfcore.h, which begins an NT_PRSTATUS note. The general
// registers follow, and an int that tells whether there are floating-point ones.
type ElfPrstatus struct {
	_                            structs.HostLayout
	Signo, Code, Errno           int32 // of what ended the process
	Cursig                       int16
	_                            [2]byte
	Sigpend                      uint64
	Sighold                      uint64
	Pid, Ppid, Pgrp, Sid         int32
	Utime, Stime, Cutime, Cstime unix.Timeval
}

// ElfPrpsinfo is struct elf_prpsinfo of include/linux/elfcore.h, an NT_PRPSINFO note.
type ElfPrpsinfo struct {
	_                    structs.HostLayout
	State                uint8 // index into RSDTZW
	Sname                uint8 // one of RSDTZW
	Zomb                 uint8
	Nice                 int8
	_                    [4]byte
	Flag                 uint64
	Uid, Gid             uint32
	Pid, Ppid, Pgrp, Sid int32
	Fname                [16]byte
	Psargs               [80]byte // the arguments with spaces between them, and a NUL
}
