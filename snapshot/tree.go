package snapshot

import (
	"vps/dump"
	"vps/object"
	"vps/object/birth"
	"vps/suspend"
)

// probeTree refuses a process tree that no restore could make again. Processes come and go while it is read: an error that
// does not come again is none.
func probeTree(src *Source, procs crowd) error {
	var last error
	for range 3 {
		records, err := readTree(procs)
		if err == nil {
			err = planTree(records)
		}
		if err == nil || last != nil && err.Error() != last.Error() {
			return nil
		}
		last = err
		if procs, _, err = src.look(); err != nil {
			return err
		}
		defer procs.close()
	}
	return last
}

// readTree reads the processes of a running instance, zombies too, as far as their births matter.
func readTree(procs crowd) (map[uint64]*dump.Process, error) {
	inside := make(map[int]int)
	found := make(map[int]*object.Status)
	for _, p := range procs {
		inside[p.Host], found[p.Host] = p.PID, p.Status
	}
	for _, p := range procs {
		children, err := suspend.Children(p.Host) // with the zombies, which no cgroup lists
		if err != nil && !object.Vanished(err) {
			return nil, err
		}
		for _, pid := range children {
			if found[pid] != nil {
				continue
			}
			s, err := object.ReadStatus(pid)
			if object.Vanished(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			inside[pid], _, _ = s.Inside()
			found[pid] = s
		}
	}
	records := make(map[uint64]*dump.Process)
	sharings := object.NewSharings()
	for _, s := range object.Sorted(found) {
		pid, pgid, sid := s.Inside()
		p := &dump.Process{Pid: uint32(pid), Ppid: uint32(inside[s.PPID]), Pgid: uint32(pgid), Sid: uint32(sid)}
		if s.State == 'Z' {
			p.State = dump.Process_ZOMBIE
		} else if err := sharings.Fill(p, s.PID); object.Vanished(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		records[uint64(pid)] = p
	}
	return records, nil
}

// planTree refuses process records that cannot be restored.
func planTree(records map[uint64]*dump.Process) error {
	copies := make(map[uint64]*dump.Process)
	for id, r := range records {
		p := &dump.Process{
			Pid: r.Pid, Ppid: r.Ppid, Pgid: r.Pgid, Sid: r.Sid, State: r.State, WaitStatus: r.WaitStatus, Threads: r.Threads,
			Mm: r.Mm, SigHand: r.SigHand, FdTable: r.FdTable, Fs: r.Fs,
		}
		if p.Ppid == 0 && p.Pid != 1 {
			p.Ppid = 1 // whose parent is outside is init's after a restore
		}
		copies[id] = p
	}
	_, err := birth.NewPlan(copies)
	if err == nil {
		return nil
	}
	return &object.Refusal{FD: -1, Object: "process tree", Why: err.Error()}
}
