package snapshot

import (
	"errors"
	"slices"

	"vps/dump"
	"vps/object/task"
	"vps/remote"
)

// slotSize is that of a thread's slot: its questions, their answers, and a signal frame with all extended state.
const slotSize = 64 << 10

// draftSize is that of a batch with questions that are then not asked, or of which one is more than it holds.
const draftSize = 4096

// know finds in the kernel's memory what only the process can tell; false: something of that is to be asked of the process.
func (t *taker) know(p *process) (known bool, err error) {
	if t.facts == nil {
		return false, nil
	}
	leader, err := t.facts.Task(p.Task())
	if err != nil {
		return false, err
	}
	if known, err = t.facts.Process(leader, p.record); err != nil || !known {
		return false, err
	}
	if p.mm != nil && !t.src.Flags.Settings(leader, p.mm) {
		return false, nil
	}
	drafts := make([]remote.Job, len(p.held.Threads))
	for i := range drafts {
		drafts[i].Batch = remote.Draft(draftSize)
	}
	_, more, err := t.askObjects(drafts, p)
	if err != nil || more || slices.ContainsFunc(drafts, func(j remote.Job) bool { return j.Batch.Len() > 0 }) {
		return false, err
	}
	for i, th := range p.held.Threads {
		task := leader
		if i > 0 {
			if task, err = t.facts.Task(th.TID); err != nil {
				return false, err
			}
		}
		if known, err := t.facts.Thread(task, p.tasks[i]); err != nil || !known {
			return false, err
		}
	}
	if id := uint64(p.PID); p.record.SigHand == id {
		p.hand = &dump.SigHand{Id: id}
		return true, t.facts.SigHand(leader, p.hand)
	}
	return true, nil
}

// learn takes note of what an answer tells of other processes.
func (t *taker) learn(p *process) {
	if t.facts == nil {
		return
	}
	for i, th := range p.held.Threads {
		task, err := t.facts.Task(th.TID)
		if err != nil {
			continue
		}
		t.facts.Learn(task, p.tasks[i])
		if i == 0 && p.mm != nil {
			t.src.Flags.LearnSettings(task, p.mm)
		}
	}
}

// ask lets the process answer what only it can tell, in one batch for each of its threads.
func (t *taker) ask(p *process) error {
	if known, err := t.know(p); known || err != nil {
		return err
	}
	start, end := p.memory.VDSO()
	leader := p.held.Threads[0]
	live, err := remote.Enter(leader, p.PidFD, start, end, len(p.held.Threads), slotSize)
	if err != nil {
		return err
	}
	var answers []func() error
	jobs := make([]remote.Job, len(p.held.Threads))
	for i, th := range p.held.Threads {
		b := live.Arena.Page(i).Batch()
		jobs[i] = remote.Job{Thread: th, Batch: b}
		answer := task.AskThread(b)
		answers = append(answers, func() error { return answer(p.tasks[i]) })
	}
	b := jobs[0].Batch
	process := task.AskProcess(b)
	answers = append(answers, func() error { return process(p.record) }, task.AskTimers(b, p.record.GetTimers()))
	if id := uint64(p.PID); p.record.SigHand == id {
		p.hand = &dump.SigHand{Id: id}
		hand := task.AskSigHand(b)
		answers = append(answers, func() error { return hand(p.hand) })
	}
	if p.mm != nil {
		mm := p.memory.Ask(b)
		answers = append(answers, func() error { return mm(p.mm) })
	}
	open, more, err := t.askObjects(jobs, p)
	if err != nil {
		return errors.Join(err, live.Leave())
	}
	answers = append(answers, open)
	err = live.Run(t.ctx, jobs)
	for _, answer := range answers {
		if err == nil {
			err = answer()
		}
	}
	for err == nil && more {
		for i := range jobs {
			jobs[i].Batch = live.Arena.Page(i).Batch()
		}
		if open, more, err = t.askObjects(jobs, p); err == nil {
			asked := slices.DeleteFunc(slices.Clone(jobs), func(j remote.Job) bool { return j.Batch.Len() == 0 })
			err = errors.Join(live.Run(t.ctx, asked), open())
		}
	}
	if lerr := live.Leave(); err == nil {
		err = lerr
	}
	if err == nil {
		t.learn(p)
	}
	return err
}
