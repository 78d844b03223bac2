package restore

import (
	"context"
	"fmt"

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
	path, other string // other: deleted, but it has another name
	flags       int
}

// makeFiles makes mounts, open file descriptions, and opens what the processes map, in the first stub.
func (r *restorer) makeFiles(ctx context.Context) error {
	m := &object.Maker{Page: r.Page, PidFD: r.PidFD, Socket: r.Socket, SocketFD: r.SocketFD, Child: r.Arena.Page(r.FirstSlot + r.slots - 1)}
	err := m.Run(ctx, func(b *remote.Batch) {
		task.BlockSignals(b)
		b.Call("clear umask", unix.SYS_UMASK, 0)
		if name := r.set.Instance.GetDomainname(); name != "" && name != "(none)" {
			b.Call("set domain name", unix.SYS_SETDOMAINNAME, b.String(name), len(name))
		}
	})
	if err != nil {
		return err
	}
	if err := mount.Restore(r.Page.Script(ctx, r.PidFD), m, r.set, r.content); err != nil {
		return err
	}
	if err := network.RestoreSysctls(r.PID, r.set.Instance.GetSysctl()); err != nil {
		if !r.Force {
			return err
		}
		r.Warn(err.Error())
	}
	r.files, err = kinds.Restore(ctx, m, r.set, r.content, kinds.Options{
		Options: file.Options{Force: r.Force}, Console: r.Console, ConsoleTTY: r.ConsoleTTY,
	})
	if err != nil {
		return err
	}
	return r.openRefs(ctx)
}

// openRefs opens every file that is mapped, executed or stood in, once.
func (r *restorer) openRefs(ctx context.Context) error {
	open := func(ref *dump.FileRef, flags int) error {
		key := refKey{ref.GetPath(), ref.GetOther(), flags}
		if _, ok := r.refs[key]; ok || ref == nil {
			return nil
		}
		fd, err := r.files.OpenPath(ctx, ref, flags)
		if err != nil {
			return err
		}
		r.refs[key] = fd
		return nil
	}
	for _, mm := range r.set.Mms {
		if mm.GetExe().GetMemory() == 0 {
			if err := open(mm.GetExe(), unix.O_RDONLY); err != nil {
				return err
			}
		}
		for _, m := range mm.GetMappings() {
			if m.GetKind() == dump.Mapping_FILE {
				if err := open(m.GetFile(), mapFlags(m.GetShared() && m.GetMaxWrite())); err != nil {
					return err
				}
			}
		}
	}
	for _, p := range r.set.Processes {
		for _, ref := range []*dump.FileRef{p.GetCwd(), p.GetRoot()} {
			if err := open(ref, unix.O_PATH|unix.O_DIRECTORY); err != nil {
				return err
			}
		}
	}
	return nil
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
	fd, ok := r.refs[refKey{ref.GetPath(), ref.GetOther(), flags}]
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
