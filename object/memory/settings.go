package memory

import (
	"vps/dump"
	"vps/kmem"
)

// dumpable are the bits of an address space's flags that PR_GET_DUMPABLE tells (MMF_DUMPABLE_MASK, include/linux/mm_types.h).
const dumpable = 3

// Settings is [AddressSpace.Ask] without asking, for a process that does not run, by its struct task_struct. False: nobody whose address space has
// these bits has been asked yet. Flags may be nil.
func (f *Flags) Settings(task kmem.Value, mm *dump.Mm) (known bool) {
	if f == nil {
		return false
	}
	m := task.Member("mm").Deref().Load()
	bits := settingsOf(m)
	mm.Brk, mm.Dumpable = m.Member("brk").Uint(), uint32(bits.flags&dumpable)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.settings[bits]
	if s == nil {
		return false
	}
	mm.ThpDisable, mm.LockFuture, mm.DenyWriteExec, mm.Membarriers = s.GetThpDisable(), s.GetLockFuture(), s.GetDenyWriteExec(), s.GetMembarriers()
	return true
}

// settingBits are what the answers depend on, and a local descriptor table.
type settingBits struct{ flags, future, barriers, ldt uint64 }

// settingsOf reads them in a struct mm_struct.
func settingsOf(m kmem.Value) settingBits {
	bits := settingBits{flags: m.Member("flags").Uint(), future: m.Member("def_flags").Uint()}
	if m.Has("membarrier_state") {
		bits.barriers = m.Member("membarrier_state").Uint()
	}
	if context := m.Member("context"); context.Has("ldt") {
		bits.ldt = context.Member("ldt").Uint()
	}
	return bits
}

// LearnSettings takes note of what a process has answered to [AddressSpace.Ask], that its bits mean the same in others.
func (f *Flags) LearnSettings(task kmem.Value, mm *dump.Mm) {
	if f == nil {
		return
	}
	bits := settingsOf(task.Member("mm").Deref())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settings[bits] = &dump.Mm{
		ThpDisable: mm.GetThpDisable(), LockFuture: mm.GetLockFuture(), DenyWriteExec: mm.GetDenyWriteExec(), Membarriers: mm.GetMembarriers(),
	}
}
