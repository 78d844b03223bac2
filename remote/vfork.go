package remote

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// WaitsInVfork tells whether a task waits for a child that has not executed a program yet (vfork(2), CLONE_VFORK of clone(2)). Nobody
// but SIGKILL gets it out of there, no tracer either.
func WaitsInVfork(tid int) (bool, error) {
	// It waits uninterruptibly (kernel/fork.c, wait_for_vfork_done).
	if state, err := taskState(tid); state != 'D' || err != nil {
		return false, err
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/syscall") // proc_pid_syscall(5)
	if err != nil {
		return false, err
	}
	var nr int
	var first uint64
	if n, _ := fmt.Sscanf(string(text), "%d %v", &nr, &first); n < 2 {
		return false, nil // it runs
	}
	switch nr {
	case unix.SYS_VFORK:
		return true, nil
	case unix.SYS_CLONE:
		return first&unix.CLONE_VFORK != 0, nil
	case unix.SYS_CLONE3:
		var flags [8]byte // first field of struct clone_args
		err := ReadMemory(tid, first, flags[:])
		return binary.LittleEndian.Uint64(flags[:])&unix.CLONE_VFORK != 0, err
	}
	return false, nil
}
