package linux

import "structs"

// SeccompData is what a seccomp filter sees of a system call: struct
// seccomp_data of include/uapi/linux/seccomp.h, in the byte order of the host.
type SeccompData struct {
	_                  structs.HostLayout
	Nr                 int32
	Arch               uint32
	InstructionPointer uint64
	Args               [6]uint64
}
