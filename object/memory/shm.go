package memory

import (
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

// kernelDevice is the device of the files that the kernel itself makes in memory: memfds, shared anonymous memory, System V segments.
var kernelDevice = sync.OnceValues(func() (string, error) {
	fd, err := unix.MemfdCreate("device", unix.MFD_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("fstat: %w", err)
	}
	return fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev)), nil
})

// segment tells whether the mapping is an attachment of System V shared memory. Its inode number is then the segment's id
// (ipc/shm.c, newseg).
func (v *vma) segment() bool {
	if !strings.HasPrefix(v.name, "/SYSV") || !v.anonymousFile() {
		return false
	}
	device, err := kernelDevice()
	return err == nil && v.device == device
}

// attach adds the calls that attach System V shared memory where the mappings of a record are, and unmap what the process has
// unmapped of it.
func attach(s *remote.Script, mm *dump.Mm, segments func(id uint64) (size uint64, err error)) error {
	type place struct{ shm, base uint64 }
	attached := make(map[place]uint64) // up to where it is as it is to be
	ends := make(map[place]uint64)
	var order []place
	for _, m := range mm.GetMappings() {
		if m.GetKind() != dump.Mapping_SHM {
			continue
		}
		at := place{m.GetShm(), m.GetStart() - m.GetOffset()}
		if _, ok := attached[at]; !ok {
			size, err := segments(m.GetShm())
			if err != nil {
				return err
			}
			flags := 0
			if !m.GetMaxWrite() {
				flags |= linux.SHM_RDONLY
			}
			if m.GetProt()&unix.PROT_EXEC != 0 {
				flags |= linux.SHM_EXEC
			}
			s.Call(fmt.Sprintf("attach shared memory segment %d at %#x", at.shm-1, at.base), unix.SYS_SHMAT, at.shm-1, at.base, flags)
			attached[at], ends[at] = at.base, at.base+(size+4095)&^4095
			order = append(order, at)
		}
		unmap(s, attached[at], m.GetStart())
		attached[at] = m.GetEnd()
		s.Call(fmt.Sprintf("protect %#x", m.GetStart()), unix.SYS_MPROTECT, m.GetStart(), m.GetEnd()-m.GetStart(), m.GetProt())
	}
	for _, at := range order {
		unmap(s, attached[at], ends[at])
	}
	return nil
}

func unmap(s *remote.Script, start, end uint64) {
	if start < end {
		s.Call(fmt.Sprintf("unmap %#x", start), unix.SYS_MUNMAP, start, end-start)
	}
}
