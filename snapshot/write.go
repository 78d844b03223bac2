package snapshot

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
	"vps/object/ipc"
	"vps/object/mount"
	"vps/object/task"
	"vps/remote"
)

// write writes all records but those of pages.
func (t *taker) write() error {
	info := proto.CloneOf(t.src.Info)
	if err := object.DumpInstance(info, t.src.Init); err != nil {
		return err
	}
	begin, err := object.ReadClocks(t.src.Init)
	if err != nil {
		return err
	}
	if info.Sysctl, err = ipc.ReadSysctls(t.src.Init); err != nil {
		return err
	}
	settings, err := t.settings()
	if err != nil {
		return err
	}
	maps.Copy(info.Sysctl, settings)
	maps.Copy(info.Sysctl, t.src.Settings)
	if t.src.Kernel != nil {
		if info.LastPid, err = object.LastPID(t.src.Kernel, t.procs[0].PidFD); err != nil {
			return err
		}
	}
	info.Suspended = t.in.Suspended
	info.SeccompBase = uint32(t.src.Filters)
	mounts, err := mount.Read(t.src.Init, t.src.Standard)
	if err != nil {
		return err
	}
	defer mounts.Close()
	if err := mounts.Dump(t.ids, t); err != nil {
		return err
	}
	if err := t.restarts(); err != nil {
		return err
	}
	for _, p := range t.procs {
		if err := t.writeProcess(p); err != nil {
			return nameOf(p.Proc, err)
		}
	}
	for _, record := range t.filters.Records() {
		if err := t.w.Put(record.GetId(), record); err != nil {
			return err
		}
	}
	if err := t.writeIPC(); err != nil {
		return err
	}
	if err := t.network.Dump(t); err != nil {
		return err
	}
	if err := t.files.Finish(t.ctx); err != nil {
		return err
	}
	// From here the instance's own clocks go on, after all that was left of sleeps and timers has been read: none of them ends early.
	// The time of day is that of the beginning: connections are as old as that at least.
	if info.Clocks, err = object.ReadClocks(t.src.Init); err != nil {
		return err
	}
	info.Clocks.Realtime = begin.Realtime
	return t.w.Put(1, info)
}

func (t *taker) writeIPC() error {
	mms := make(map[int]*dump.Mm)
	for _, p := range t.procs {
		mms[p.Host] = p.mm
	}
	return t.ipc.Dump(t, mms)
}

func (t *taker) writeProcess(p *process) error {
	if p.held.Zombie {
		return t.w.Put(uint64(p.PID), p.record)
	}
	if err := t.writeTables(p); err != nil {
		return err
	}
	if err := t.w.Put(uint64(p.PID), p.record); err != nil {
		return err
	}
	tasks := p.tasks
	if p.ended != nil {
		tasks = append(tasks, p.ended)
	}
	for _, th := range tasks {
		if err := t.w.Put(uint64(th.GetTid()), th); err != nil {
			return err
		}
	}
	if p.hand != nil {
		if err := t.w.Put(p.hand.GetId(), p.hand); err != nil {
			return err
		}
	}
	if p.mm == nil {
		return nil
	}
	return t.w.Put(p.mm.GetId(), p.mm)
}

// restarts adds what is left of interrupted calls with a time limit.
func (t *taker) restarts() error {
	threads := make(map[int]*dump.Thread) // by tid here
	for _, p := range t.procs {
		for i, th := range p.held.Threads {
			regs := remote.FromRecord(p.tasks[i].GetRegs())
			if restarts, block := regs.Restarts(); restarts && block {
				threads[th.TID] = p.tasks[i]
			}
		}
	}
	if len(threads) == 0 {
		return nil
	}
	known := make(map[int]*dump.Restart)
	if t.src.Restarts != nil {
		var err error
		if known, err = t.src.Restarts.Read(slices.Collect(maps.Keys(threads))); err != nil {
			return fmt.Errorf("interrupted calls: %w", err)
		}
	}
	for tid, th := range threads {
		th.Restart = known[tid]
		if th.Restart.GetKnown() {
			continue
		}
		var err error
		if th.Restart, err = task.FullRestart(tid, th.GetRegs()); err != nil {
			return fmt.Errorf("interrupted calls: %w", err)
		}
	}
	return nil
}
