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

// sharer is the first task that has a thing, which is known by its id inside.
type sharer struct {
	host, id int
	pid      int // of its process
}

// first returns the first of the tasks looked at that have the same thing as a given one, which may be itself. The task has not ended:
// one without anything shares that with others like it.
func (s *Sharing) first(task sharer) (sharer, error) {
	place, err := Search(len(s.sorted), func(i int) (int, error) {
		return linux.Kcmp(s.sorted[i].host, task.host, s.kind, 0, 0)
	})
	switch {
	case err != nil:
		return task, fmt.Errorf("compare task %d with others: %w", task.host, err)
	case place >= 0:
		return s.sorted[place], nil
	}
	s.sorted = slices.Insert(s.sorted, -place-1, task)
	return task, nil
}

// Sharings tell what the tasks of an instance share.
type Sharings struct{ memory, actions, files, places Sharing }

// NewSharings returns sharings that know no task yet.
func NewSharings() *Sharings {
	return &Sharings{Sharing{kind: linux.KCMP_VM}, Sharing{kind: linux.KCMP_SIGHAND}, Sharing{kind: linux.KCMP_FILES}, Sharing{kind: linux.KCMP_FS}}
}

// Fill notes in the record of a process what it shares: as ids the pids of the first processes with the same things. All threads
// of other processes have been looked at, or none.
func (s *Sharings) Fill(record *dump.Process, p Proc) error {
	for _, thing := range []struct {
		of *Sharing
		id *uint64
	}{{&s.memory, &record.Mm}, {&s.actions, &record.SigHand}, {&s.files, &record.FdTable}, {&s.places, &record.Fs}} {
		first, err := thing.of.first(sharer{p.Task(), p.PID, p.PID})
		if err != nil {
			return err
		}
		if first.id != first.pid {
			return &Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: fmt.Sprintf("sharing with a single thread of pid %d", first.pid)}
		}
		*thing.id = uint64(first.id)
	}
	return nil
}

// Own says what a thread does not share with its process, by the id of the first thread that has it; 0: nothing.
type Own struct {
	TID       int // here
	Files, Fs uint64
}

// Threads returns those of the threads of a process, by their tids here, that have something of their own.
func (s *Sharings) Threads(p Proc, tids []int) ([]Own, error) {
	var list []Own
	for _, tid := range tids {
		own := Own{TID: tid}
		var err error
		if own.Files, err = s.files.own(p, tid); err != nil {
			return nil, err
		}
		if own.Fs, err = s.places.own(p, tid); err != nil {
			return nil, err
		}
		if own.Files != 0 || own.Fs != 0 {
			list = append(list, own)
		}
	}
	return list, nil
}

// own returns the id of a thing that a thread does not share with its process, 0 if it does.
func (s *Sharing) own(p Proc, tid int) (uint64, error) {
	order, err := linux.Kcmp(p.Task(), tid, s.kind, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("compare task %d with its process: %w", tid, err)
	}
	if order == 0 {
		return 0, nil
	}
	status, err := ReadStatus(tid)
	if err != nil {
		return 0, err
	}
	inside, _, _ := status.Inside()
	first, err := s.first(sharer{tid, inside, p.PID})
	if err != nil {
		return 0, err
	}
	if first.pid != p.PID {
		return 0, &Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: fmt.Sprintf("a thread that shares with pid %d what the others do not", first.pid)}
	}
	return uint64(first.id), nil
}
