package recordset

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"vps/dump"
	"vps/object"
	"vps/object/aio"
	"vps/object/ipc"
	"vps/object/memory"
	"vps/object/mount"
	"vps/object/network"
	"vps/object/task"
)

// checker looks at the records of a set.
type checker struct{ *object.Set }

// check looks at what a part of the restore takes for granted of records that another part reads, and at everything that
// would let an instance reach what is not its own. Errors name the record.
func (s checker) check(snapshot *dump.Snapshot) error {
	if err := s.checkIDs(); err != nil {
		return err
	}
	if last := s.Instance.GetLastPid(); last >= object.MaxPID {
		return fmt.Errorf("last pid %d is not possible", last)
	}
	if s.Processes[1] == nil {
		return fmt.Errorf("the snapshot has no process 1")
	}
	for _, id := range object.SortedIDs(s.Mms) {
		if err := s.checkMm(s.Mms[id], snapshot); err != nil {
			return err
		}
	}
	tids := make(map[uint32]uint64)
	for _, id := range object.SortedIDs(s.Processes) {
		if err := s.checkProcess(s.Processes[id], tids); err != nil {
			return fmt.Errorf("process %d: %w", id, err)
		}
	}
	if err := s.checkSharing(); err != nil {
		return err
	}
	for _, id := range object.SortedIDs(s.Files) {
		if err := s.checkFile(s.Files[id]); err != nil {
			return fmt.Errorf("file %d: %w", id, err)
		}
	}
	return cmp.Or(mount.Check(s.Set), ipc.Check(s.Set), network.Check(s.Set))
}

// checkIDs holds each record against the id that it is found by.
func (s checker) checkIDs() error {
	return cmp.Or(
		sameIDs("address space", s.Mms), sameIDs("descriptor table", s.FdTables), sameIDs("signal actions", s.SigHands),
		sameIDs("seccomp filter", s.Seccomps), sameIDs("file", s.Files), sameIDs("pipe", s.Pipes),
		sameIDs("socket", s.UnixSockets), sameIDs("pty", s.Ttys), sameIDs("memory", s.Memories), sameIDs("mount", s.Mounts),
		sameIDs("inode", s.Inodes), sameIDs("shared memory segment", s.ShmSegments), sameIDs("semaphore set", s.SemSets),
		sameIDs("message queue", s.MsgQueues), sameIDs("POSIX message queue", s.Mqueues),
		sameIDs("network socket", s.Sockets), sameIDs("network", s.Networks), sameIDs("network firewall", s.Firewalls),
		sameIDs("TCP queue", s.TCPQueues))
}

func sameIDs[M interface{ GetId() uint64 }](what string, records map[uint64]M) error {
	for _, id := range object.SortedIDs(records) {
		if own := records[id].GetId(); own != id {
			return fmt.Errorf("%s %d says that it is %d", what, id, own)
		}
	}
	return nil
}

func (s checker) checkMm(mm *dump.Mm, snapshot *dump.Snapshot) error {
	if err := memory.Check(mm); err != nil {
		return err
	}
	for _, m := range mm.GetMappings() {
		var err error
		switch m.GetKind() {
		case dump.Mapping_MEMORY:
			err = s.checkContent(m.GetMemory())
		case dump.Mapping_FILE:
			err = s.checkRef(m.GetFile(), "mapped file")
		case dump.Mapping_SHM:
			err = ipc.CheckMapping(s.Set, m)
		case dump.Mapping_AIO:
			err = aio.Check(m)
		}
		if err != nil {
			return fmt.Errorf("address space %d: mapping %#x: %w", mm.GetId(), m.GetStart(), err)
		}
	}
	if err := s.checkRef(mm.GetExe(), "executable"); err != nil {
		return fmt.Errorf("address space %d: %w", mm.GetId(), err)
	}
	private := func(m *dump.Mapping) bool {
		k := m.GetKind()
		return !m.GetShared() && (k == dump.Mapping_ANON || k == dump.Mapping_FILE || k == dump.Mapping_MEMORY)
	}
	for _, e := range snapshot.Extents(dump.Key{Type: dump.Type_TYPE_MM, ID: mm.GetId()}) {
		if !covered(mm, e.Range, private) {
			return fmt.Errorf("address space %d: pages %v are not in its private memory", mm.GetId(), e.Range)
		}
	}
	return nil
}

// covered tells whether a range lies in mappings without a gap, each of which fits.
func covered(mm *dump.Mm, r dump.Range, fits func(*dump.Mapping) bool) bool {
	list := mm.GetMappings()
	i, _ := slices.BinarySearchFunc(list, r.Start, func(m *dump.Mapping, start uint64) int {
		if m.GetEnd() <= start {
			return -1
		}
		return 1
	})
	for ; i < len(list) && r.Start < r.End; i++ {
		if list[i].GetStart() > r.Start || !fits(list[i]) {
			return false
		}
		r.Start = list[i].GetEnd()
	}
	return r.Start >= r.End
}

func (s checker) checkContent(id uint64) error {
	if m := s.Memories[id]; m == nil || m.GetKind() == dump.Memory_TMPFS || m.GetKind() == dump.Memory_SYSV {
		return fmt.Errorf("there is no memory %d", id)
	}
	return nil
}

func (s checker) checkRef(ref *dump.FileRef, what string) error {
	if ref == nil {
		return fmt.Errorf("no %s", what)
	}
	err := object.CheckPath(ref.GetPath())
	if ref.GetMemory() != 0 {
		err = s.checkContent(ref.GetMemory())
	}
	if point := ref.GetBeneath(); err == nil && point != "" {
		if err = object.CheckPath(point); err == nil && !strings.HasPrefix(ref.GetPath(), strings.TrimSuffix(point, "/")+"/") {
			err = fmt.Errorf("path %s is not beneath %s", ref.GetPath(), point)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (s checker) checkProcess(p *dump.Process, tids map[uint32]uint64) error {
	if p.GetPid() == 0 || p.GetPid() >= object.MaxPID || s.Processes[uint64(p.GetPid())] != p {
		return fmt.Errorf("impossible pid %d", p.GetPid())
	}
	switch p.GetState() {
	case dump.Process_ZOMBIE:
		return nil
	case dump.Process_RUNNING, dump.Process_STOPPED:
	default:
		return fmt.Errorf("state %d: %w", p.GetState(), object.ErrUnsupported)
	}
	switch {
	case s.Mms[p.GetMm()] == nil:
		return fmt.Errorf("there is no address space %d", p.GetMm())
	case s.FdTables[p.GetFdTable()] == nil:
		return fmt.Errorf("there is no descriptor table %d", p.GetFdTable())
	case s.SigHands[p.GetSigHand()] == nil:
		return fmt.Errorf("there are no signal actions %d", p.GetSigHand())
	case p.GetTty() != 0 && s.Ttys[p.GetTty()] == nil:
		return fmt.Errorf("there is no pty %d", p.GetTty())
	case len(p.GetThreads()) == 0 || p.GetThreads()[0] != p.GetPid():
		return fmt.Errorf("its first thread is not thread %d", p.GetPid())
	}
	if err := cmp.Or(s.checkRef(p.GetCwd(), "current directory"), s.checkRef(p.GetRoot(), "root")); err != nil {
		return err
	}
	for _, tid := range p.GetThreads() {
		if owner, ok := tids[tid]; ok {
			return fmt.Errorf("thread %d belongs to process %d too", tid, owner)
		}
		tids[tid] = uint64(p.GetPid())
		if err := s.checkThread(p, tid); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
	return task.CheckPending(p.GetPending())
}

func (s checker) checkThread(p *dump.Process, tid uint32) error {
	t := s.Threads[uint64(tid)]
	switch {
	case t == nil || tid == 0 || tid >= object.MaxPID:
		return fmt.Errorf("is not there")
	case t.GetTid() != tid || t.GetPid() != p.GetPid():
		return fmt.Errorf("says that it is thread %d of process %d", t.GetTid(), t.GetPid())
	case t.GetCreds() == nil:
		return fmt.Errorf("no credentials")
	case t.GetEnded():
		return checkEnded(p, t)
	case t.GetRegs() == nil:
		return fmt.Errorf("no registers")
	}
	if _, err := task.SeccompChain(t, s.Seccomps); err != nil {
		return err
	}
	if err := checkWritten(s.Mms[p.GetMm()], t); err != nil {
		return err
	}
	return task.CheckPending(t.GetPending())
}

// checkWritten looks at the addresses that the kernel writes to while the restore's own memory is still mapped.
func checkWritten(mm *dump.Mm, t *dump.Thread) error {
	const rseqSize, timespecSize, pollfdSize = 32, 16, 8
	mapped := func(what string, at, size uint64) error {
		if at == 0 || at+size >= at && covered(mm, dump.Range{Start: at, End: at + size}, func(*dump.Mapping) bool { return true }) {
			return nil
		}
		return fmt.Errorf("%s %#x is not in its memory", what, at)
	}
	if r := t.GetRseq(); r.GetAddress() != 0 {
		if err := mapped("area of restartable sequences", r.GetAddress(), max(rseqSize, uint64(r.GetSize()))); err != nil {
			return err
		}
	}
	switch t.GetRestart().GetKind() {
	case dump.Restart_NANOSLEEP:
		return mapped("rest of a sleep", t.GetRestart().GetRmtp(), timespecSize)
	case dump.Restart_POLL:
		return mapped("array of poll", t.GetRegs().GetRdi(), pollfdSize*uint64(uint32(t.GetRegs().GetRsi())))
	}
	return nil
}

func (s checker) checkFile(f *dump.File) error {
	missing := func(what string, id uint64, there bool) error {
		if there {
			return nil
		}
		return fmt.Errorf("there is no %s %d", what, id)
	}
	switch f.GetKind().(type) {
	case *dump.File_Path:
		return s.checkRef(f.GetPath(), "path")
	case *dump.File_Pipe:
		return missing("pipe", f.GetPipe().GetPipe(), s.Pipes[f.GetPipe().GetPipe()] != nil)
	case *dump.File_Memory:
		return s.checkContent(f.GetMemory())
	case *dump.File_UnixSocket:
		return missing("socket", f.GetUnixSocket(), s.UnixSockets[f.GetUnixSocket()] != nil)
	case *dump.File_Socket:
		return missing("network socket", f.GetSocket(), s.Sockets[f.GetSocket()] != nil)
	case *dump.File_Mqueue:
		return missing("POSIX message queue", f.GetMqueue(), s.Mqueues[f.GetMqueue()] != nil)
	case *dump.File_Tty:
		return missing("pty", f.GetTty().GetTty(), s.Ttys[f.GetTty().GetTty()] != nil)
	case *dump.File_Epoll:
		for _, item := range f.GetEpoll().GetItems() {
			if s.Files[item.GetFile()] == nil {
				return fmt.Errorf("epoll watches file %d, which is not there", item.GetFile())
			}
		}
	}
	return nil
}
