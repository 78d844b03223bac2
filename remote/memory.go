package remote

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
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

// MaxScatter is how many places [ScatterMemory] takes (UIO_MAXIOV, include/uapi/linux/uio.h).
const MaxScatter = 1024

// ScatterMemory writes buf to places of a process, one after the other, that have room for all of it.
func ScatterMemory(pid int, places []dump.Range, buf []byte) error {
	to := make([]unix.RemoteIovec, len(places))
	for i, r := range places {
		to[i] = unix.RemoteIovec{Base: uintptr(r.Start), Len: int(r.Len())}
	}
	for len(buf) > 0 {
		n, err := unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}}, to, 0)
		if err != nil {
			return fmt.Errorf("write %d bytes at %#x of process %d: %w", len(buf), to[0].Base, pid, err)
		}
		buf = buf[n:]
		for n > 0 {
			part := min(n, to[0].Len)
			to[0].Base += uintptr(part)
			to[0].Len -= part
			if n -= part; to[0].Len == 0 {
				to = to[1:]
			}
		}
	}
	return nil
}
