// Package ipc has the ipc namespace: System V objects, POSIX message queues and their settings.
//
// Settings are read on a thread in the namespace and written by the maker; an instance with objects is refused.
package ipc

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vps/object"
)

// Probe refuses an instance, whose init is given by its pid here, that has System V objects or POSIX message queues.
func Probe(init int) []error {
	var refusals []error
	err := object.InNamespace(init, "ipc", unix.CLONE_NEWIPC, func() error {
		for _, kind := range []struct{ file, name string }{
			{"msg", "message queue"}, {"sem", "semaphore set"}, {"shm", "shared memory segment"},
		} {
			text, err := os.ReadFile("/proc/sysvipc/" + kind.file)
			if err != nil {
				return err
			}
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			for _, line := range lines[1:] {
				fields := strings.Fields(line)
				if len(fields) > 1 {
					refusals = append(refusals, &object.Refusal{FD: -1, Object: fmt.Sprintf("System V %s %s", kind.name, fields[1])})
				}
			}
		}
		return nil
	})
	if err != nil {
		return append(refusals, err)
	}
	queues, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/dev/mqueue", init))
	if err != nil && !os.IsNotExist(err) {
		return append(refusals, err)
	}
	for _, q := range queues {
		refusals = append(refusals, &object.Refusal{FD: -1, Object: "POSIX message queue " + q.Name()})
	}
	return refusals
}
