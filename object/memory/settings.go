package memory

import (
	"vps/dump"
	"vps/kmem"
)

// dumpable are the bits of an address space's flags that PR_GET_DUMPABLE tells (MMF_DUMPABLE_MASK, include/linux/mm_types.h).
const dumpable = 3

// Settings is [Ask] without asking, for a process that does not run, by its struct task_struct. False: nobody whose address space has
// these flags has been asked yet. Flags may be nil.
func (f *Flags) Settings(task kmem.Value, mm *dump.Mm) (known bool) {
	if f == nil {
		return false
	}
	m := task.Member("mm").Deref().Load()
	flags := m.Member("flags").Uint()
	mm.Brk, mm.Dumpable = m.Member("brk").Uint(), uint32(flags&dumpable)
	f.mu.Lock()
	defer f.mu.Unlock()
	mm.ThpDisable, known = f.noHuge[flags]
	return known
}

// LearnSettings takes note of what a process has answered to [Ask], that its flags mean the same in others.
func (f *Flags) LearnSettings(task kmem.Value, mm *dump.Mm) {
	if f == nil {
		return
	}
	flags := task.Member("mm").Deref().Member("flags").Uint()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noHuge[flags] = mm.GetThpDisable()
}
