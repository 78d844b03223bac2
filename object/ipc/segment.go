package ipc

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
)

// firstMemory is where the ids of segments' content begin among those of the Memory records.
const firstMemory = 1 << 49

// segment is System V shared memory that is being dumped.
type segment struct {
	record *dump.ShmSegment
	link   string // to it, in the map_files directory of a process that has it attached; "": nobody has
}

func (s *segment) id() int { return int(s.record.GetId()) - 1 }

func (o *Objects) readSegments() error {
	var ds unix.SysvShmDesc
	last, err := unix.SysvShmCtl(0, linux.SHM_INFO, &ds) // struct shm_info is smaller
	stat := func(index int) (int, error) { return unix.SysvShmCtl(index, linux.SHM_STAT_ANY, &ds) }
	return each(last, err, stat, func(id int) error {
		s := &segment{record: &dump.ShmSegment{
			Id: recordID(id), Size: ds.Segsz, Memory: firstMemory + recordID(id), Creator: o.pid(ds.Cpid), Last: o.pid(ds.Lpid),
		}}
		var err error
		if s.record.Perm, err = o.perm(&ds.Perm); err != nil {
			return fmt.Errorf("shared memory segment %d: %w", id, err)
		}
		o.segments = append(o.segments, s)
		return nil
	})
}

// findAttachments finds for each segment a process that has it attached: so it is read without leaving a trace.
func (o *Objects) findAttachments(mms map[int]*dump.Mm) {
	links := make(map[uint64]string)
	for pid, mm := range mms {
		for _, m := range mm.GetMappings() {
			if m.GetKind() == dump.Mapping_SHM {
				links[m.GetShm()] = fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.GetStart(), m.GetEnd())
			}
		}
	}
	for _, s := range o.segments {
		s.link = links[s.record.GetId()]
		if name, err := os.Readlink(s.link); err == nil && s.record.GetPerm().GetMode()&linux.SHM_DEST != 0 {
			var key uint32
			if _, err := fmt.Sscanf(name, "/SYSV%08x", &key); err == nil {
				s.record.FirstKey = int32(key)
			}
		}
	}
}

// dump writes the segment and its content. The thread is in the ipc namespace.
func (s *segment) dump(sink object.Sink) error {
	f, err := s.open()
	if err != nil {
		return err
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("fstatfs: %w", err)
	}
	if fs.Type == unix.HUGETLBFS_MAGIC {
		return &object.Refusal{FD: -1, Object: fmt.Sprintf("shared memory segment %d of huge pages", s.id())}
	}
	m := &dump.Memory{Id: s.record.GetMemory(), Kind: dump.Memory_SYSV, Size: wholePages(s.record.GetSize())}
	if err := sink.Put(s.record.GetId(), s.record); err != nil {
		return err
	}
	if err := sink.Put(m.GetId(), m); err != nil {
		return err
	}
	content, err := openContent(f, s.record.GetSize())
	if err != nil {
		return err
	}
	defer content.close()
	var r io.ReaderAt = content
	if content.tail == nil {
		r = f // whose holes can be seen
	}
	return sink.Memory(m.GetId(), r, int64(m.GetSize()))
}

// open opens what a segment is kept in. One that is attached nowhere is attached to us for a moment.
func (s *segment) open() (*os.File, error) {
	if s.link != "" {
		return os.Open(s.link)
	}
	memory, err := unix.SysvShmAttach(s.id(), 0, linux.SHM_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	defer unix.SysvShmDetach(memory)
	return openMapped(os.Getpid(), address(memory), uint64(len(memory)), os.O_RDONLY)
}
