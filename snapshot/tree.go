package snapshot

import (
	"slices"

	"vps/dump"
	"vps/object"
	"vps/object/birth"
	"vps/remote"
	"vps/suspend"
)

// probeTree refuses a process tree that no restore could make again. Processes come and go while it is read: an error that
// does not come again is none.
func probeTree(src *Source) error {
	var last error
	for range 3 {
		records, err := readTree(src)
		if err == nil {
			err = planTree(records)
		}
		if err == nil || last != nil && err.Error() != last.Error() {
			return nil
		}
		last = err
	}
	return last
}

// readTree reads the processes of a running instance, zombies too, as far as their births matter.
func readTree(src *Source) (map[uint64]*dump.Process, error) {
	pids, err := src.Group.Procs()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		children, err := suspend.Children(pid) // with the zombies, which no cgroup lists
		if err != nil && !object.Vanished(err) {
			return nil, err
		}
		pids = append(pids, children...)
	}
	level, err := object.ReadLevel(src.Init)
	if err != nil {
		return nil, err
	}
	inside := make(map[int]int)
	found := make(map[int]*object.Status)
	records := make(map[uint64]*dump.Process)
	sharings := object.NewSharings()
	for _, pid := range pids {
		record, s, err := readBirth(pid, level, sharings)
		if object.Vanished(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		inside[pid], found[int(record.GetPid())] = int(record.GetPid()), s
		records[uint64(record.GetPid())] = record
	}
	for pid, s := range found {
		records[uint64(pid)].Ppid = uint32(inside[s.PPID])
	}
	return records, nil
}

// readBirth reads a process as far as its birth matters, but for its parent.
func readBirth(pid, level int, sharings *object.Sharings) (*dump.Process, *object.Status, error) {
	p, err := object.OpenProc(pid, level)
	if err != nil {
		return nil, nil, err
	}
	defer p.Close()
	s, err := object.ReadStatus(pid)
	if err != nil {
		return nil, nil, err
	}
	_, pgid, sid := s.Inside()
	record := &dump.Process{Pid: uint32(p.PID), Pgid: uint32(pgid), Sid: uint32(sid)}
	if s.State == 'Z' && p.Lead == 0 {
		record.State = dump.Process_ZOMBIE
		return record, s, nil
	}
	if err := sharings.Fill(record, p); err != nil {
		return nil, nil, err
	}
	_, err = ownThreads(p, sharings)
	return record, s, err
}

// ownThreads returns the threads of a process that have something of their own.
func ownThreads(p object.Proc, sharings *object.Sharings) ([]object.Own, error) {
	tids, err := remote.Tasks(p.Host)
	if err != nil {
		return nil, err
	}
	return sharings.Threads(p, slices.DeleteFunc(tids, func(tid int) bool { return tid == p.Task() || tid == p.Host }))
}

// planTree refuses process records that cannot be restored.
func planTree(records map[uint64]*dump.Process) error {
	copies := make(map[uint64]*dump.Process)
	for id, r := range records {
		p := &dump.Process{
			Pid: r.Pid, Ppid: r.Ppid, Pgid: r.Pgid, Sid: r.Sid, State: r.State, WaitStatus: r.WaitStatus, Threads: r.Threads,
			Mm: r.Mm, SigHand: r.SigHand, FdTable: r.FdTable, Fs: r.Fs,
		}
		if p.Ppid == 0 && p.State == dump.Process_ZOMBIE {
			p.Ppid = 1 // it is not for us to reap
		}
		copies[id] = p
	}
	_, err := birth.NewPlan(copies)
	if err == nil {
		return nil
	}
	return &object.Refusal{FD: -1, Object: "process tree", Why: err.Error()}
}
