package snapshot

import (
	"errors"

	"vps/dump"
	"vps/object/memory"
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
	leader, err := t.facts.Task(p.Host)
	if err != nil {
		return false, err
	}
	if known, err = t.facts.Process(leader, p.record); err != nil || !known {
		return false, err
	}
	if p.mm != nil && !t.src.Flags.Settings(leader, p.mm) {
		return false, nil
	}
	draft := remote.Draft(draftSize)
	if _, more, err := t.askObjects(draft, p); err != nil || more || draft.Len() > 0 {
		return false, err
	}
	for i, th := range p.held.Threads {
		task := leader
		if i > 0 {
			if task, err = t.facts.Task(th.TID); err != nil {
				return false, err
			}
		}
		if err := t.facts.Thread(task, p.tasks[i]); err != nil {
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
	if t.facts == nil || p.mm == nil {
		return
	}
	if leader, err := t.facts.Task(p.Host); err == nil {
		t.src.Flags.LearnSettings(leader, p.mm)
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
		mm := memory.Ask(b)
		answers = append(answers, func() error { return mm(p.mm) })
	}
	open, more, err := t.askObjects(b, p)
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
		b = live.Arena.Page(0).Batch()
		if open, more, err = t.askObjects(b, p); err == nil {
			err = errors.Join(live.Run(t.ctx, []remote.Job{{Thread: leader, Batch: b}}), open())
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

// askObjects asks a process for what only it can tell of the objects that it uses, see [file.Descriptors.Ask].
func (t *taker) askObjects(b *remote.Batch, p *process) (answer func() error, more bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	files, more, err := t.files.Ask(b, p.Proc)
	if err != nil || p.PID != 1 {
		return files, more, err
	}
	objects, again := t.ipc.Ask(b)
	return func() error { return errors.Join(files(), objects()) }, more || again, nil
}
