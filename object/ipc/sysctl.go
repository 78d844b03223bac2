package ipc

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
)

// ipcSysctls are the settings of an ipc namespace, below /proc/sys (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel/auto_msgmni", "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shm_rmid_forced",
	"kernel/shmall", "kernel/shmmax", "kernel/shmmni",
	"fs/mqueue/msg_default", "fs/mqueue/msg_max", "fs/mqueue/msgsize_default", "fs/mqueue/msgsize_max", "fs/mqueue/queues_max",
}

// ReadSysctls reads the settings of the ipc namespace of a process, by its pid here.
func ReadSysctls(pid int) (map[string]string, error) {
	values := make(map[string]string)
	err := object.InNamespace(pid, "ipc", unix.CLONE_NEWIPC, func() error {
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

// RestoreSysctls sets what differs in the instance whose files are being restored from the record. Other names than those of an ipc
// namespace are refused.
func RestoreSysctls(ctx context.Context, r *file.Files, recorded map[string]string) error {
	have, err := ReadSysctls(r.PID())
	if err != nil {
		return err
	}
	s := r.Maker().Page.Script(ctx, r.Maker().PidFD)
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
