package recordset

import (
	"cmp"
	"fmt"

	"vps/dump"
	"vps/object"
)

// checkSharing looks at what processes and threads share, as far as the way they come to be again relies on it.
func (s checker) checkSharing() error {
	memory := make(map[uint64]uint64) // of those who have signal actions
	tables, places := make(map[uint64]uint32), make(map[uint64]uint32)
	for _, id := range object.SortedIDs(s.Processes) {
		p := s.Processes[id]
		if p.GetState() == dump.Process_ZOMBIE {
			continue
		}
		if mm, ok := memory[p.GetSigHand()]; ok && mm != p.GetMm() {
			return fmt.Errorf("process %d: signal actions %d, but not memory %d", id, p.GetSigHand(), mm)
		}
		memory[p.GetSigHand()] = p.GetMm()
		tables[p.GetFdTable()], places[p.GetFs()] = 0, 0
	}
	for _, id := range object.SortedIDs(s.Processes) {
		for _, tid := range s.Processes[id].GetThreads() {
			if err := s.checkOwn(s.Threads[uint64(tid)], tables, places); err != nil {
				return fmt.Errorf("process %d: thread %d: %w", id, tid, err)
			}
		}
	}
	return nil
}

// checkOwn looks at what a thread has of its own: nobody of another process has it, and it is not that of its process. tables and
// places are those that are known, and of which process.
func (s checker) checkOwn(t *dump.Thread, tables, places map[uint64]uint32) error {
	alone := func(known map[uint64]uint32, id uint64, what string) error {
		if pid, ok := known[id]; ok && pid != t.GetPid() {
			return fmt.Errorf("%s %d of its own, which others have", what, id)
		}
		known[id] = t.GetPid()
		return nil
	}
	if id := t.GetFdTable(); id != 0 {
		if s.FdTables[id] == nil {
			return fmt.Errorf("there is no descriptor table %d", id)
		}
		if err := alone(tables, id, "descriptor table"); err != nil {
			return err
		}
	}
	fs := t.GetFs()
	if fs == nil {
		return nil
	}
	if fs.GetId() == 0 {
		return fmt.Errorf("a place of its own without a number")
	}
	return cmp.Or(s.checkRef(fs.GetCwd(), "current directory"), s.checkRef(fs.GetRoot(), "root"), alone(places, fs.GetId(), "place"))
}

// checkEnded looks at a thread that has ended: the first of a process, which has others.
func checkEnded(p *dump.Process, t *dump.Thread) error {
	switch {
	case t.GetTid() != p.GetPid() || len(p.GetThreads()) < 2:
		return fmt.Errorf("has ended, but it is not the first of several")
	case t.GetFdTable() != 0 || t.GetFs() != nil:
		return fmt.Errorf("has ended, and has something of its own")
	case t.GetWaitStatus()&^0xff00 != 0:
		return fmt.Errorf("has ended with wait status %#x", t.GetWaitStatus())
	}
	return nil
}
