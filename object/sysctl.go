package object

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
)

// ipcSysctls are the settings of an ipc namespace, below /proc/sys (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel/auto_msgmni", "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shm_rmid_forced",
	"kernel/shmall", "kernel/shmmax", "kernel/shmmni",
	"fs/mqueue/msg_default", "fs/mqueue/msg_max", "fs/mqueue/msgsize_default", "fs/mqueue/msgsize_max", "fs/mqueue/queues_max",
}

// readSysctls reads the settings of the ipc namespace of a process, by its pid here.
func readSysctls(pid int) (map[string]string, error) {
	values := make(map[string]string)
	err := inNamespace(pid, "ipc", unix.CLONE_NEWIPC, func() error {
		for _, name := range ipcSysctls {
			text, err := os.ReadFile("/proc/sys/" + name)
			if os.IsNotExist(err) {
				continue // not in this kernel
			}
			if err != nil {
				return err
			}
			values[name] = strings.TrimSpace(string(text))
		}
		return nil
	})
	return values, err
}

// RestoreSysctls sets what differs in the instance of a maker, pid here, from the record. Other names than those of an ipc
// namespace are refused.
func (r *Files) RestoreSysctls(ctx context.Context, recorded map[string]string) error {
	have, err := readSysctls(r.pid)
	if err != nil {
		return err
	}
	s := r.m.Page.Script(ctx, r.m.PidFD)
	for _, name := range ipcSysctls {
		value, ok := recorded[name]
		if !ok || value == have[name] {
			continue
		}
		if len(value) > 256 {
			return fmt.Errorf("sysctl %s: value of %d bytes", name, len(value))
		}
		path := "/proc/sys/" + name
		fd, err := r.OpenPath(ctx, &dump.FileRef{Path: path, Mode: unix.S_IFREG}, unix.O_WRONLY)
		if err != nil {
			return err
		}
		b := s.Room(1024)
		b.Call(fmt.Sprintf("set %s to %q", path, value), unix.SYS_WRITE, fd, b.Data([]byte(value)), len(value))
		if err := s.Run(); err != nil {
			return err
		}
	}
	return nil
}
