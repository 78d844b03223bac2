package remote

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// CloneArgs are those of clone3(2) that a stub needs; its child is a stub in another slot.
type CloneArgs struct {
	Slot       *Page
	Flags      uint64
	ExitSignal unix.Signal
	SetTID     []int // pids from the innermost namespace outwards
	Cgroup     int   // with CLONE_INTO_CGROUP
	TLS        uint64
	ParentTID  Address
	ChildTID   Address
}

// Clone adds a clone3(2) whose child begins in a slot, with the batch that is there if it has been started.
// The result is the child's pid in the caller's pid namespace.
func (b *Batch) Clone(what string, c CloneArgs) Result {
	var tids Address
	if len(c.SetTID) > 0 {
		data := []byte{}
		for _, t := range c.SetTID {
			data = binary.LittleEndian.AppendUint32(data, uint32(t))
		}
		tids = b.Data(data)
	}
	// struct clone_args, include/uapi/linux/sched.h. The child's stack pointer is stack+stack_size: its slot.
	const stack = 16
	args := b.Words(c.Flags, 0, uint64(c.ChildTID), uint64(c.ParentTID), uint64(c.ExitSignal),
		c.Slot.address-stack, stack, c.TLS, uint64(tids), uint64(len(c.SetTID)), uint64(c.Cgroup))
	return b.Call(what, unix.SYS_CLONE3, args, 88)
}
