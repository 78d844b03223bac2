package object

import (
	"errors"
	"fmt"

	"vps/kmem"
)

// LastPID returns the last pid that was given in the innermost pid namespace of an init, by its pidfd: only its own processes
// can read it from the file that tells it (proc_sys_kernel(5), ns_last_pid).
func LastPID(kernel *kmem.Reader, init int) (uint32, error) {
	w := kernel.Walk()
	pid := w.PID(init)
	number := pid.Member("numbers").Index(int(pid.Member("level").Uint()))
	next := number.Member("ns").Deref().Member("idr", "idr_next").Uint()
	err := w.Err()
	if err == nil && number.Member("nr").Uint() != 1 {
		err = errors.New("it is not process 1")
	}
	if err != nil {
		return 0, fmt.Errorf("last pid: %w", err)
	}
	return uint32(max(next, 1)) - 1, nil
}
