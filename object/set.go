package object

import (
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/pager"
)

// LoadSet reads all records of a snapshot and checks what every part of a restore relies on: that what a record refers to
// is there, and that no number is impossible. A snapshot is hostile input.
func LoadSet(s *dump.Snapshot) (*Set, error) {
	if bad, err := s.Unsupported(); err != nil {
		return nil, err
	} else if len(bad) > 0 {
		return nil, bad[0]
	}
	set := &Set{}
	var err error
	if set.Instance, err = dump.Get[*dump.Instance](s, 1); err != nil {
		return nil, fmt.Errorf("general information: %w", err)
	}
	for _, load := range []func() error{
		into(s, &set.Mounts), into(s, &set.Inodes), into(s, &set.Processes), into(s, &set.Threads), into(s, &set.Mms),
		into(s, &set.FdTables), into(s, &set.SigHands), into(s, &set.Seccomps), into(s, &set.Files), into(s, &set.Pipes),
		into(s, &set.UnixSockets), into(s, &set.Ttys), into(s, &set.Memories),
	} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	return set, set.check()
}

// into loads all records of a type.
func into[M proto.Message](s *dump.Snapshot, to *map[uint64]M) func() error {
	return func() error {
		*to = make(map[uint64]M)
		var zero M
		for _, id := range s.IDs(dump.TypeOf(zero)) {
			m, err := dump.Get[M](s, id)
			if err != nil {
				return err
			}
			(*to)[id] = m
		}
		return nil
	}
}

// maxPID is the highest pid that a kernel can be told to give (PID_MAX_LIMIT, include/linux/threads.h).
const maxPID = 1 << 22

func (s *Set) check() error {
	if s.Processes[1] == nil {
		return fmt.Errorf("the snapshot has no process 1")
	}
	tids := make(map[uint32]uint64)
	for id, p := range s.Processes {
		if uint64(p.GetPid()) != id || id == 0 || id >= maxPID {
			return fmt.Errorf("process %d: impossible pid %d", id, p.GetPid())
		}
		if p.GetState() == dump.Process_ZOMBIE {
			continue
		}
		if err := s.checkProcess(p, tids); err != nil {
			return fmt.Errorf("process %d: %w", id, err)
		}
	}
	for id, mm := range s.Mms {
		if mm.GetId() != id {
			return fmt.Errorf("address space %d says that it is %d", id, mm.GetId())
		}
		if err := CheckMemory(mm); err != nil {
			return err
		}
		for _, m := range mm.GetMappings() {
			if m.GetKind() == dump.Mapping_MEMORY && s.Memories[m.GetMemory()] == nil {
				return fmt.Errorf("address space %d: mapping %#x: there is no memory %d", id, m.GetStart(), m.GetMemory())
			}
		}
	}
	for id, m := range s.Mounts {
		if !strings.HasPrefix(m.GetTarget(), "/") {
			return fmt.Errorf("mount %d: target %q", id, m.GetTarget())
		}
	}
	return nil
}

func (s *Set) checkProcess(p *dump.Process, tids map[uint32]uint64) error {
	switch {
	case s.Mms[p.GetMm()] == nil:
		return fmt.Errorf("there is no address space %d", p.GetMm())
	case s.FdTables[p.GetFdTable()] == nil:
		return fmt.Errorf("there is no descriptor table %d", p.GetFdTable())
	case s.SigHands[p.GetSigHand()] == nil:
		return fmt.Errorf("there are no signal actions %d", p.GetSigHand())
	case len(p.GetThreads()) == 0 || p.GetThreads()[0] != p.GetPid():
		return fmt.Errorf("its first thread is not thread %d", p.GetPid())
	}
	for _, tid := range p.GetThreads() {
		if owner, ok := tids[tid]; ok {
			return fmt.Errorf("thread %d belongs to process %d too", tid, owner)
		}
		tids[tid] = uint64(p.GetPid())
		t := s.Threads[uint64(tid)]
		switch {
		case t == nil || tid == 0 || tid >= maxPID:
			return fmt.Errorf("there is no thread %d", tid)
		case t.GetTid() != tid || t.GetPid() != p.GetPid():
			return fmt.Errorf("thread %d says that it is thread %d of process %d", tid, t.GetTid(), t.GetPid())
		case t.GetRegs() == nil:
			return fmt.Errorf("thread %d has no registers", tid)
		case t.GetSeccomp() != 0 && s.Seccomps[t.GetSeccomp()] == nil:
			return fmt.Errorf("thread %d: there is no seccomp filter %d", tid, t.GetSeccomp())
		}
		if err := CheckPending(t.GetPending()); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
	return CheckPending(p.GetPending())
}

// SnapshotContent gives the content of the Memory records of a snapshot.
type SnapshotContent struct {
	Snapshot *dump.Snapshot
	Set      *Set
}

// Fill writes the pages of a Memory record to w.
func (c SnapshotContent) Fill(id uint64, w io.WriterAt) error {
	m, ok := c.Set.Memories[id]
	if !ok {
		return fmt.Errorf("there is no memory %d", id)
	}
	return pager.FillFile(c.Snapshot, id, w, int64(m.GetSize()))
}
