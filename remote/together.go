package remote

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Call is a system call that a stopped thread is to make, by a syscall instruction at an address.
type Call struct {
	Thread *Thread
	At     uint64
	Nr     int
	Args   []uint64
}

// SyscallAll lets different stopped threads make a call each, all at the same time. They are then stopped at its exit:
// [SettleAll] must follow. Results are not told, but that one of them is an error.
func SyscallAll(calls []Call) error {
	for _, c := range calls {
		if err := c.Thread.begin(c.At, c.Nr, c.Args); err != nil {
			return err
		}
	}
	for _, c := range calls { // stopped at the entry
		if err := c.Thread.waitSyscall(); err != nil {
			return err
		}
		if err := c.Thread.resume(unix.PTRACE_SYSCALL, 0); err != nil {
			return err
		}
	}
	for _, c := range calls {
		if _, err := c.Thread.result(); err != nil {
			return fmt.Errorf("task %d: %w", c.Thread.TID, err)
		}
	}
	return nil
}

// Settling is a thread with the registers that it goes on with.
type Settling struct {
	Thread    *Thread
	Registers Registers
}

// SettleAll is [Thread.Settle] for many threads at the same time.
func SettleAll(list []Settling) error {
	for _, s := range list {
		if err := s.Thread.settle(s.Registers); err != nil {
			return err
		}
	}
	for _, s := range list {
		if err := s.Thread.WaitStop(); err != nil {
			return err
		}
	}
	return nil
}
