package socket

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reuseportFilter reads the classic BPF program that chooses among the sockets of a group (SO_ATTACH_REUSEPORT_CBPF of socket(7)), which
// only the kernel's memory tells: include/net/sock_reuseport.h. ok is false for an eBPF program.
func (n *Namespace) reuseportFilter(fd int) (program []byte, ok bool, err error) {
	grouped, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err != nil || grouped == 0 || n.kernel == nil {
		return nil, true, nil // not every family has it
	}
	w := n.kernel.Walk()
	group := w.File(fd).Member("private_data").Deref().As("socket").Member("sk").Deref().Member("sk_reuseport_cb").Deref()
	if w.Err() != nil || group.Null() {
		return nil, true, w.Err()
	}
	prog := group.Member("prog").Deref()
	if w.Err() != nil || prog.Null() {
		return nil, true, w.Err()
	}
	original := prog.Member("orig_prog").Deref()
	if w.Err() != nil || original.Null() {
		return nil, false, w.Err()
	}
	size := original.Member("len").Uint()
	if size > bpfMaxInsns {
		return nil, true, fmt.Errorf("a filter of %d instructions", size)
	}
	program = original.Member("filter").Deref().Bytes(int(size) * instruction)
	return program, true, w.Err()
}

// attachReuseportFilter gives the group of a socket its filter, which has been checked.
func attachReuseportFilter(fd int, program []byte) error {
	if len(program) == 0 {
		return nil
	}
	list := decode(program)
	fprog := &unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, fprog); err != nil {
		return fmt.Errorf("attach the filter of a group: %w", err)
	}
	return nil
}
