package restore

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/object/kinds"
	"vps/object/mount"
	"vps/object/network"
	"vps/object/task"
	"vps/remote"
)

// refKey is a file that a process maps, executes or stands in.
type refKey struct {
	path, other, beneath string // other: deleted, but it has another name
	flags                int
}

// makeFiles makes mounts, open file descriptions, and opens what the processes map, in the first stub.
func (r *restorer) makeFiles(ctx context.Context) error {
	m := &object.Maker{Page: r.Page, PidFD: r.PidFD, Socket: r.Socket, SocketFD: r.SocketFD, Child: r.Arena.Page(r.FirstSlot + r.slots - 1)}
	err := m.Run(ctx, func(b *remote.Batch) {
		task.BlockSignals(b)
		// Its children are so too: or root would not be let read what /proc tells of them.
		b.Call("set dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
		b.Call("clear umask", unix.SYS_UMASK, 0)
		if name := r.set.Instance.GetDomainname(); name != "" && name != "(none)" {
			b.Call("set domain name", unix.SYS_SETDOMAINNAME, b.String(name), len(name))
		}
	})
	if err != nil {
		return err
	}
	if r.mounts, err = mount.Restore(r.Page.Script(ctx, r.PidFD), m, r.PID, r.set, r.content); err != nil {
		return err
	}
	if err := network.Restore(ctx, m, r.set, network.Options{PID: r.PID, Bound: r.Bound, Settings: r.setNetwork}); err != nil {
		return err
	}
	r.files, err = kinds.Restore(ctx, m, r.set, r.content, kinds.Options{
		Options: file.Options{Force: r.Force, Bound: r.Bound}, Console: r.Console, ConsoleTTY: r.ConsoleTTY,
	})
	if err != nil {
		return err
	}
	if r.Lazy != nil {
		if err := r.openFaults(ctx); err != nil {
			return err
		}
	}
	return r.openRefs(ctx)
}

// setNetwork sets the settings of the network.
func (r *restorer) setNetwork() error {
	err := network.RestoreSysctls(r.PID, r.set.Instance.GetSysctl())
	if err != nil && r.Force {
		r.Warn(err.Error())
		return nil
	}
	return err
}

// openFaults gives the stubs a way to make userfaultfds that serve the kernel's faults too: who opens the device needs the right to that,
// not who uses it (userfaultfd(2)).
func (r *restorer) openFaults(ctx context.Context) error {
	device, err := os.OpenFile("/dev/userfaultfd", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("a lazy restore needs Linux 6.1 with userfaultfd: %w", err)
	}
	defer device.Close()
	r.faults = r.files.Stage()
	return r.files.Maker().Give(ctx, device, r.faults)
}

// openRefs opens every file that is mapped, executed or stood in, once.
func (r *restorer) openRefs(ctx context.Context) error {
	for id, mm := range r.set.Mms {
		if mm.GetExe().GetMemory() == 0 {
			if err := r.openRef(ctx, mm.GetExe(), unix.O_RDONLY); err != nil {
				return fmt.Errorf("program of address space %d: %w", id, err)
			}
		}
		for _, m := range mm.GetMappings() {
			if m.GetKind() != dump.Mapping_FILE {
				continue
			}
			if err := r.openRef(ctx, m.GetFile(), mapFlags(m.GetShared() && m.GetMaxWrite())); err != nil {
				return fmt.Errorf("address space %d: mapping %#x-%#x: %w", id, m.GetStart(), m.GetEnd(), err)
			}
		}
	}
	for pid, p := range r.set.Processes {
		if err := r.openPlace(ctx, p.GetRoot(), p.GetCwd()); err != nil {
			return fmt.Errorf("pid %d: %w", pid, err)
		}
	}
	for tid, th := range r.set.Threads {
		if err := r.openPlace(ctx, th.GetFs().GetRoot(), th.GetFs().GetCwd()); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
	return nil
}

// openPlace opens where somebody stands.
func (r *restorer) openPlace(ctx context.Context, root, cwd *dump.FileRef) error {
	for what, ref := range map[string]*dump.FileRef{"current directory": cwd, "root": root} {
		if err := r.openRef(ctx, ref, unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func (r *restorer) openRef(ctx context.Context, ref *dump.FileRef, flags int) error {
	key := refKey{ref.GetPath(), ref.GetOther(), ref.GetBeneath(), flags}
	if _, ok := r.refs[key]; ok || ref == nil || ref.GetProcess() != 0 || ref.GetMemory() != 0 {
		return nil
	}
	fd, err := r.files.OpenPath(ctx, ref, flags)
	if err == nil {
		r.refs[key] = fd
	}
	return err
}

func mapFlags(write bool) int {
	if write {
		return unix.O_RDWR
	}
	return unix.O_RDONLY
}

// RefFD and MemoryFD tell where a stub finds what it maps.
func (r *restorer) RefFD(ref *dump.FileRef, write bool) (int, error) {
	return r.ref(ref, mapFlags(write))
}

func (r *restorer) ref(ref *dump.FileRef, flags int) (int, error) {
	if ref.GetMemory() != 0 {
		return r.MemoryFD(ref.GetMemory())
	}
	fd, ok := r.refs[refKey{ref.GetPath(), ref.GetOther(), ref.GetBeneath(), flags}]
	if !ok {
		return -1, fmt.Errorf("file %s is not open", ref.GetPath())
	}
	return fd, nil
}

// SegmentSize gives the size of a System V segment.
func (r *restorer) SegmentSize(id uint64) (uint64, error) {
	seg := r.set.ShmSegments[id]
	if seg == nil {
		return 0, fmt.Errorf("there is no shared memory segment %d", id)
	}
	return seg.GetSize(), nil
}

// MemoryFD returns the descriptor of a Memory record's object.
func (r *restorer) MemoryFD(id uint64) (int, error) { return r.files.MemoryFD(id) }
