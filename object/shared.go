package object

import (
	"fmt"
	"slices"

	"vps/dump"
	"vps/linux"
)

// Sharing finds out which tasks share a thing that clone(2) can share.
type Sharing struct {
	kind   int      // KCMP_
	sorted []sharer // by kcmp's order, one for each thing
}

type sharer struct {
	tid int
	id  uint64
}

// NewSharing compares by a kind of kcmp(2): KCMP_VM, KCMP_FILES, KCMP_FS or KCMP_SIGHAND.
func NewSharing(kind int) *Sharing { return &Sharing{kind: kind} }

// ID returns the id of the thing that a task has, by its tid here. It is the given one if no task before had that thing, and else
// the one that the first of them gave. The task has not ended: one without anything shares that with others like it.
func (s *Sharing) ID(tid int, id uint64) (uint64, error) {
	place, err := Search(len(s.sorted), func(i int) (int, error) {
		return linux.Kcmp(s.sorted[i].tid, tid, s.kind, 0, 0)
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("compare task %d with others: %w", tid, err)
	case place >= 0:
		return s.sorted[place].id, nil
	}
	s.sorted = slices.Insert(s.sorted, -place-1, sharer{tid, id})
	return id, nil
}

// ProbeMemory refuses processes that share memory (CLONE_VM of clone(2)) without being threads of each other.
func ProbeMemory(procs []Proc) []error {
	var refusals []error
	sharing := NewSharing(linux.KCMP_VM)
	for _, p := range procs {
		switch id, err := sharing.ID(p.Host, uint64(p.PID)); {
		case Vanished(err):
		case err != nil:
			refusals = append(refusals, err)
		case id != uint64(p.PID):
			refusals = append(refusals, &Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: fmt.Sprintf("sharing memory (CLONE_VM) with pid %d", id)})
		}
	}
	return refusals
}

// Sharings are those of all kinds.
type Sharings struct{ Mm, SigHand, FdTable, Fs *Sharing }

// NewSharings returns sharings that know no task yet.
func NewSharings() Sharings {
	return Sharings{NewSharing(linux.KCMP_VM), NewSharing(linux.KCMP_SIGHAND), NewSharing(linux.KCMP_FILES), NewSharing(linux.KCMP_FS)}
}

// Fill notes in the record of a process what it shares. The ids are pids: that of the first process with the same thing. tid is a
// thread of it that has not ended, here.
func (s Sharings) Fill(p *dump.Process, tid int) error {
	for _, thing := range []struct {
		of *Sharing
		id *uint64
	}{{s.Mm, &p.Mm}, {s.SigHand, &p.SigHand}, {s.FdTable, &p.FdTable}, {s.Fs, &p.Fs}} {
		var err error
		if *thing.id, err = thing.of.ID(tid, uint64(p.GetPid())); err != nil {
			return err
		}
	}
	return nil
}
