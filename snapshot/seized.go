package snapshot

import (
	"vps/dump"
	"vps/object"
	"vps/object/task"
	"vps/remote"
)

// seized is what only its tracer can tell of a thread.
type seized struct {
	state   *remote.State
	pending [][]byte // its own signals
	process [][]byte // those of its process; of the first thread only
	filters []task.SeccompFilter
}

// seize reads a stopped thread.
func seize(th *remote.Thread, first bool) (*seized, error) {
	s := &seized{}
	var err error
	if s.state, err = th.State(); err != nil {
		return nil, err
	}
	if s.pending, err = th.Pending(false); err != nil {
		return nil, err
	}
	if first {
		if s.process, err = th.Pending(true); err != nil {
			return nil, err
		}
	}
	programs, flags, err := th.Filters()
	for i := range programs {
		s.filters = append(s.filters, task.SeccompFilter{Program: programs[i], Flags: flags[i]})
	}
	return s, err
}

// merge puts what the tracer has read into the records.
func (t *taker) merge(p *process) error {
	for i, record := range p.tasks {
		t.threads++
		s := p.seized[i]
		if s.state.Registers.Compat() {
			return &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "a 32-bit task"}
		}
		if s.state.Registers.Segmented() {
			return &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "a segment of its own (set_thread_area, modify_ldt)"}
		}
		record.Regs, record.Xstate, record.Sigmask = s.state.Registers.Record(), s.state.XState, s.state.SigMask
		if r := s.state.Rseq; r.Address != 0 {
			record.Rseq = &dump.Rseq{Address: r.Address, Size: r.Size, Signature: r.Signature, Flags: r.Flags}
		}
		own, stop := task.SplitStop(s.pending)
		all, stopAll := task.SplitStop(s.process)
		record.Pending = own
		if i == 0 {
			p.record.Pending = all
		}
		if stop || stopAll {
			p.record.State = dump.Process_STOPPED
		}
		if err := t.filters.Add(record, s.filters); err != nil {
			return err
		}
	}
	return nil
}
