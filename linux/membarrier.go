package linux

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MEMBARRIER_CMD_GLOBAL of include/uapi/linux/membarrier.h.
const MEMBARRIER_CMD_GLOBAL = 1

// AwaitReaders waits until whatever runs in the kernel now under RCU, as eBPF programs do, has ended: membarrier(2), whose global
// command is synchronize_rcu.
func AwaitReaders() error {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, MEMBARRIER_CMD_GLOBAL, 0, 0); errno != 0 {
		return fmt.Errorf("membarrier: %w", errno)
	}
	return nil
}
