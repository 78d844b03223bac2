package ipc

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/object"
	"vps/remote"
)

// ipcSysctls are the settings of an ipc namespace, below /proc/sys (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel/auto_msgmni", "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shm_rmid_forced",
	"kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_next_id", "kernel/sem_next_id", "kernel/msg_next_id",
	"fs/mqueue/msg_default", "fs/mqueue/msg_max", "fs/mqueue/msgsize_default", "fs/mqueue/msgsize_max", "fs/mqueue/queues_max",
}

// lateSysctls are those that the making of objects uses up, or that would destroy them: they are set at last.
var lateSysctls = []string{"kernel/shm_rmid_forced", "kernel/shm_next_id", "kernel/sem_next_id", "kernel/msg_next_id"}

// maxSysctl is more than the longest value has.
const maxSysctl = 256

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

// setSysctls sets what differs from the record before the objects are made. Other names than those of an ipc namespace are passed over.
func (r *Restorer) setSysctls() error {
	have, err := ReadSysctls(r.PID())
	if err != nil {
		return err
	}
	for _, name := range ipcSysctls {
		value, ok := r.Set().Instance.GetSysctl()[name]
		if len(value) > maxSysctl {
			return fmt.Errorf("sysctl %s: value of %d bytes", name, len(value))
		}
		if !ok || value == have[name] || slices.Contains(lateSysctls, name) {
			continue
		}
		path := "/proc/sys/" + name
		fd := r.Stage()
		r.OpenNamed(r.s, path, unix.O_WRONLY, fd)
		b := r.s.Room(1024)
		b.Call(fmt.Sprintf("set %s to %q", path, value), unix.SYS_WRITE, fd, b.Data([]byte(value)), len(value))
		b.Call("close "+path, unix.SYS_CLOSE, fd)
	}
	return r.s.Run()
}

// setLateSysctls sets what differs from the record at last. page is the stub of a process that is root, in the instance's root.
func (r *Restorer) setLateSysctls(ctx context.Context, page *remote.Page, pidfd int) error {
	have, err := ReadSysctls(r.PID())
	if err != nil {
		return err
	}
	for _, name := range lateSysctls {
		value, ok := r.Set().Instance.GetSysctl()[name]
		if !ok || value == have[name] {
			continue
		}
		if kind, isNext := strings.CutSuffix(strings.TrimPrefix(name, "kernel/"), "_next_id"); isNext {
			if _, err := r.next[kind].WriteAt([]byte(value), 0); err != nil {
				return fmt.Errorf("set %s to %q: %w", name, value, err)
			}
			continue
		}
		path := "/proc/sys/" + name
		b := page.Batch()
		open := b.Call("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD, b.String(path), unix.O_WRONLY, 0)
		if err := b.Run(ctx, pidfd); err != nil {
			return err
		}
		fd, err := b.Value(open)
		if err != nil {
			return err
		}
		b = page.Batch()
		b.Call(fmt.Sprintf("set %s to %q", path, value), unix.SYS_WRITE, fd, b.Data([]byte(value)), len(value))
		b.Call("close "+path, unix.SYS_CLOSE, fd)
		if err := b.Run(ctx, pidfd); err != nil {
			return err
		}
	}
	return nil
}
