package socket

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/linux"
)

const instruction = 8 // bytes of a struct sock_filter

// filterOf reads the classic BPF program that is attached to a socket as its filter, and whether it may be changed. ok is false
// for an eBPF program, which cannot be read.
func filterOf(fd int) (program []byte, ok bool, err error) {
	n, err := linux.Getsockopt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, nil) // counts instructions
	if err == unix.EACCES {
		return nil, false, nil
	}
	if err != nil || n == 0 {
		return nil, true, err
	}
	program = make([]byte, n*instruction)
	length := uint32(n)
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(&program[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 || int(length) != n {
		return nil, true, fmt.Errorf("read filter of %d instructions: %w", n, errno)
	}
	return program, true, nil
}

// checkFilter refuses a program of impossible length.
func checkFilter(program []byte) error {
	if len(program)%instruction != 0 || len(program)/instruction > bpfMaxInsns {
		return fmt.Errorf("filter of %d bytes", len(program))
	}
	return nil
}

const bpfMaxInsns = 4096 // BPF_MAXINSNS of include/uapi/linux/bpf_common.h

// attachFilter attaches a filter that has been checked.
func AttachFilter(fd int, program []byte) error {
	if len(program) == 0 {
		return nil
	}
	return Attach(fd, decode(program))
}

func decode(program []byte) []unix.SockFilter {
	list := make([]unix.SockFilter, len(program)/instruction)
	for i := range list {
		at := program[i*instruction:]
		list[i] = unix.SockFilter{
			Code: binary.LittleEndian.Uint16(at), Jt: at[2], Jf: at[3], K: binary.LittleEndian.Uint32(at[4:]),
		}
	}
	return list
}

// Attach gives a socket a filter, in place of the one that it has.
func Attach(fd int, list []unix.SockFilter) error {
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}
