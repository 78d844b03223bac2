package linux

import "structs"

// MMMap is struct prctl_mm_map of include/uapi/linux/prctl.h, for prctl(PR_SET_MM, PR_SET_MM_MAP).
type MMMap struct {
	_                                  structs.HostLayout
	StartCode, EndCode                 uint64
	StartData, EndData                 uint64
	StartBrk, Brk                      uint64
	StartStack                         uint64
	ArgStart, ArgEnd, EnvStart, EnvEnd uint64
	Auxv                               uint64
	AuxvSize                           uint32
	ExeFD                              uint32
}

// MapVDSO64 is ARCH_MAP_VDSO_64 of arch/x86/include/uapi/asm/prctl.h: arch_prctl(2) maps the vDSO at an address.
const MapVDSO64 = 0x2003

// MAP_DROPPABLE of include/uapi/linux/mman.h (Linux 6.11): a type of mapping whose pages may vanish.
const MAP_DROPPABLE = 0x08

// Of include/uapi/linux/membarrier.h, membarrier(2): MEMBARRIER_REGISTRATIONS are all that can be registered for, and
// MEMBARRIER_CMD_GET_REGISTRATIONS (Linux 6.3) tells which have been.
const (
	MEMBARRIER_REGISTRATIONS         = 1<<2 | 1<<4 | 1<<6 | 1<<8
	MEMBARRIER_CMD_GET_REGISTRATIONS = 1 << 9
)
