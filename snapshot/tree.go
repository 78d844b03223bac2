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
	for _, p := range procs {
		inside[p.Host] = p.PID
	}
	all := slices.Clone(procs)
	for _, p := range procs {
		children, err := suspend.Children(p.Host) // with the zombies, which no cgroup lists
		if err != nil && !object.Vanished(err) {
			return nil, err
		}
		for _, pid := range children {
			if inside[pid] != 0 {
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
			all = append(all, object.Proc{PID: inside[pid], Host: pid, PidFD: -1, Comm: s.Name, Status: s})
		}
	}
	records := make(map[uint64]*dump.Process)
	sharings := object.NewSharings()
	for _, p := range all {
		record, err := readBirth(p, sharings)
		if object.Vanished(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		record.Ppid = uint32(inside[p.Status.PPID])
		records[uint64(p.PID)] = record
	}
	return records, nil
}

// readBirth reads a process as far as its birth matters, but for its parent.
func readBirth(p object.Proc, sharings *object.Sharings) (*dump.Process, error) {
	_, pgid, sid := p.Status.Inside()
	record := &dump.Process{Pid: uint32(p.PID), Pgid: uint32(pgid), Sid: uint32(sid)}
	if p.Status.State == 'Z' {
		record.State = dump.Process_ZOMBIE
		return record, nil
	}
	if err := sharings.Fill(record, p); err != nil {
		return nil, err
	}
	_, err := ownThreads(p, sharings)
	return record, err
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
