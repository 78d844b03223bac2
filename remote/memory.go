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

// maxRanges is how many ranges one call may read (IOV_MAX, include/uapi/linux/uio.h).
const maxRanges = 1024

// ReadRanges reads ranges of a process's memory, one after the other, into buf, which is as long as they are together. It returns
// how many bytes it has read when it comes to memory that cannot be read, with an error.
func ReadRanges(pid int, ranges []dump.Range, buf []byte) (int, error) {
	done := 0
	for len(ranges) > 0 {
		part := ranges[:min(len(ranges), maxRanges)]
		ranges = ranges[len(part):]
		remote := make([]unix.RemoteIovec, len(part))
		size := 0
		for i, r := range part {
			remote[i] = unix.RemoteIovec{Base: uintptr(r.Start), Len: int(r.Len())}
			size += int(r.Len())
		}
		n, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &buf[done], Len: uint64(size)}}, remote, 0)
		if err == nil && n < size {
			done, err = done+n, unix.EFAULT
		}
		if err != nil {
			return done, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		done += n
	}
	return done, nil
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
