package remote

import "golang.org/x/sys/unix"

// Child lets a child of the stub run the batch that build writes, in a slot that is free: a process with the pid given,
// which no task has, that shares memory, descriptors and directories with the stub. The script goes on when it has ended.
// Results are valid in the child's batch, which is returned, until the slot is used again.
func (s *Script) Child(slot *Page, pid int, build func(b *Batch)) *Batch {
	s.flush()
	b := slot.Batch()
	b.Mode, b.about = Mortal, s.about
	build(b)
	b.Call("exit", unix.SYS_EXIT_GROUP, 0)
	if s.err != nil {
		return b
	}
	if s.err = b.Start(); s.err != nil {
		return b
	}
	s.batch.Clone("make a child", CloneArgs{
		Slot: slot, SetTID: []int{pid}, Flags: unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_FS,
	})
	s.batch.Call("wait for a child", unix.SYS_WAIT4, pid, 0, unix.WALL, 0)
	s.flush()
	if err := b.Err(); err != nil {
		s.err = err
	}
	return b
}
