package memory

import (
	"errors"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

// askModes asks a process for what holds for all of its memory, also that which it is yet to map.
func (a *AddressSpace) askModes(b *remote.Batch) func(mm *dump.Mm) {
	denies := b.Try("get mdwe", unix.SYS_PRCTL, unix.PR_GET_MDWE, 0, 0, 0, 0)
	barriers := b.Try("get memory barriers", unix.SYS_MEMBARRIER, linux.MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0)
	// No call tells of mlockall(2). So: is a new mapping locked, and is it there?
	const size = 4096
	at, vector := a.below(), b.Space(8)
	fresh := b.Try("map a page", unix.SYS_MMAP, at, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0)
	locked := b.Try("is it locked", unix.SYS_MSYNC, at, size, unix.MS_INVALIDATE)
	b.Try("is it there", unix.SYS_MINCORE, at, size, vector)
	b.Try("unmap it", unix.SYS_MUNMAP, fresh, size)
	return func(mm *dump.Mm) {
		if v, err := b.Value(denies); err == nil {
			mm.DenyWriteExec = uint32(v)
		}
		if v, err := b.Value(barriers); err == nil {
			mm.Membarriers = uint32(v)
		}
		if _, err := b.Value(locked); errors.Is(err, unix.EBUSY) {
			mm.LockFuture = unix.MCL_FUTURE
			if b.Bytes(vector, 1)[0]&1 == 0 {
				mm.LockFuture |= unix.MCL_ONFAULT
			}
		}
	}
}

// below returns an address below all mappings.
func (a *AddressSpace) below() uint64 {
	const far = 64 << 10 // from the next, so that the kernel does not take both for one
	if len(a.vmas) == 0 {
		return 0
	}
	return a.vmas[0].start - min(a.vmas[0].start, far)
}

// RestoreModes sets what [AddressSpace.Ask] has found to hold for all memory of a process. Nothing is mapped after it.
func RestoreModes(b *remote.Batch, mm *dump.Mm) {
	for command := uint32(1); command != 0; command <<= 1 {
		if mm.GetMembarriers()&linux.MEMBARRIER_REGISTRATIONS&command != 0 {
			b.Call("register for memory barriers", unix.SYS_MEMBARRIER, command, 0, 0)
		}
	}
	if future := mm.GetLockFuture() & (unix.MCL_FUTURE | unix.MCL_ONFAULT); future != 0 {
		b.Call("lock future memory", unix.SYS_MLOCKALL, future)
	}
	if mm.GetDenyWriteExec() != 0 {
		b.Call("set mdwe", unix.SYS_PRCTL, unix.PR_SET_MDWE, mm.GetDenyWriteExec(), 0, 0, 0)
	}
}

// lockFlags are those of mlock2(2) for a locked mapping.
func lockFlags(m *dump.Mapping) int {
	if m.GetLockOnFault() {
		return unix.MLOCK_ONFAULT
	}
	return 0
}
