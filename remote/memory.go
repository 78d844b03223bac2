package remote

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ReadMemory reads len(buf) bytes at an address of a process, by process_vm_readv(2).
func ReadMemory(pid int, address uint64, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}},
			[]unix.RemoteIovec{{Base: uintptr(address), Len: len(buf)}}, 0)
		if err != nil {
			return fmt.Errorf("read %d bytes at %#x of process %d: %w", len(buf), address, pid, err)
		}
		address, buf = address+uint64(n), buf[n:]
	}
	return nil
}

// WriteMemory writes buf at an address of a process, by process_vm_writev(2).
func WriteMemory(pid int, address uint64, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}},
			[]unix.RemoteIovec{{Base: uintptr(address), Len: len(buf)}}, 0)
		if err != nil {
			return fmt.Errorf("write %d bytes at %#x of process %d: %w", len(buf), address, pid, err)
		}
		address, buf = address+uint64(n), buf[n:]
	}
	return nil
}
