package snapshot

import (
	"errors"
	"slices"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/object/task"
	"vps/remote"
)

// ownThread is a thread that has something of its own which others share with their process.
type ownThread struct {
	object.Own
	object.Proc     // as that thread shows it
	index       int // among the process's threads that have not ended
	record      *dump.Thread
}

// tables returns a process as each of those threads shows it that have a table of descriptors of their own, itself first. The caller
// closes the others.
func tables(p object.Proc) ([]object.Proc, error) {
	list := []object.Proc{p}
	own, err := ownThreads(p, object.NewSharings())
	for _, o := range own {
		if o.Files == 0 || err != nil {
			continue
		}
		var shown object.Proc
		if shown, err = p.Thread(o.TID); err == nil {
			list = append(list, shown)
		}
	}
	return list, err
}

// writesDirectly tells whether a process has a file open to which it writes past what tracks its writes.
func writesDirectly(p object.Proc) (bool, error) {
	list, err := tables(p)
	direct := false
	for _, table := range list {
		if err == nil && !direct {
			direct, err = file.WritesDirectly(table)
		}
		if table.PidFD != p.PidFD {
			table.Close()
		}
	}
	return direct, err
}

// endedThread notes the first thread of a process that has ended while others go on.
func (t *taker) endedThread(p *process) error {
	if p.Lead == 0 {
		return nil
	}
	status, err := object.ReadStatus(p.Host)
	if err != nil {
		return err
	}
	if p.ended, err = task.DumpEnded(status, t.ids); err != nil {
		return err
	}
	p.record.Threads = append(p.record.Threads, p.ended.GetTid())
	return nil
}

// ownThings notes what the threads of a process do not share with it. The threads have been read, t.mu is locked.
func (t *taker) ownThings(p *process) error {
	tids := make([]int, len(p.held.Threads))
	for i, th := range p.held.Threads {
		tids[i] = th.TID
	}
	list, err := t.shared.Threads(p.Proc, tids[1:])
	if err != nil {
		return err
	}
	for _, o := range list {
		shown, err := p.Thread(o.TID)
		if err != nil {
			return err
		}
		i := slices.Index(tids, o.TID)
		th := ownThread{o, shown, i, p.tasks[i]}
		p.own = append(p.own, th)
		if o.Fs == 0 {
			continue
		}
		status, err := object.ReadStatus(o.TID)
		if err != nil {
			return err
		}
		fs := &dump.Fs{Id: o.Fs, Umask: status.Umask}
		if fs.Root, fs.Cwd, err = t.directories(shown); err != nil {
			return err
		}
		th.record.Fs = fs
	}
	return nil
}

// writeTables writes the tables of descriptors of a process and of its threads.
func (t *taker) writeTables(p *process) error {
	var err error
	if p.record.FdTable, err = t.files.Dump(p.Proc); err != nil {
		return err
	}
	for _, th := range p.own {
		if th.Files != 0 {
			if th.record.FdTable, err = t.files.Dump(th.Proc); err != nil {
				return err
			}
		}
	}
	return nil
}

// askObjects asks a process for what only it can tell of the objects that it uses, see [file.Descriptors.Ask]. jobs are those of its
// threads.
func (t *taker) askObjects(jobs []remote.Job, p *process) (answer func() error, more bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	answer, more, err = t.files.Ask(jobs[0].Batch, p.Proc)
	if err != nil {
		return nil, false, err
	}
	answers := []func() error{answer}
	for _, th := range p.own {
		if th.Files == 0 {
			continue
		}
		answer, again, err := t.files.Ask(jobs[th.index].Batch, th.Proc)
		if err != nil {
			return nil, false, err
		}
		answers, more = append(answers, answer), more || again
	}
	if p.PID == 1 {
		objects, again := t.ipc.Ask(jobs[0].Batch)
		answers, more = append(answers, objects), more || again
	}
	return func() error {
		var errs []error
		for _, answer := range answers {
			errs = append(errs, answer())
		}
		return errors.Join(errs...)
	}, more, nil
}
