package restore

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/task"
	"vps/remote"
)

// bearThreads makes the process's further threads, and finds out their tids here. One that does not share descriptors or place
// with its process is born of a thread with which it does, or else is the first to have its own.
func (r *restorer) bearThreads(ctx context.Context, p *process) error {
	leader := &thread{record: r.set.Threads[uint64(p.record.GetPid())], page: p.page, host: p.host}
	p.threads = []*thread{leader}
	s := p.page.Script(ctx, p.pidfd)
	var others []*dump.Thread
	for _, tid := range p.record.GetThreads()[1:] {
		record := r.set.Threads[uint64(tid)]
		if record.GetFdTable() != 0 || record.GetFs() != nil {
			others = append(others, record)
			continue
		}
		p.threads = append(p.threads, r.bearThread(s, record, unix.CLONE_FILES|unix.CLONE_FS))
	}
	if err := s.Run(); err != nil {
		return err
	}
	for len(others) > 0 {
		i, mother, flags := nextThread(p.threads, others)
		if i < 0 {
			return fmt.Errorf("thread %d: no way to share with both of two others", others[0].GetTid())
		}
		s := mother.page.Script(ctx, p.pidfd)
		th := r.bearThread(s, others[i], flags)
		if err := s.Run(); err != nil {
			return err
		}
		p.threads = append(p.threads, th)
		others = append(others[:i:i], others[i+1:]...)
	}
	return r.findThreads(p)
}

// bearThread adds the birth of a thread, which shares with its mother what flags say besides what all threads share.
func (r *restorer) bearThread(s *remote.Script, record *dump.Thread, flags uint64) *thread {
	th := &thread{record: record, page: r.slot()}
	th.page.Batch()
	s.Room(1024).Clone(fmt.Sprintf("clone thread %d", record.GetTid()), remote.CloneArgs{
		Slot: th.page, SetTID: []int{int(record.GetTid())},
		Flags: flags | unix.CLONE_VM | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM,
	})
	return th
}

// nextThread chooses the next one to be born, and of whom: it must share with its mother what it shares with anybody who is there. One
// that shares with nobody comes last. -1: there is none.
func nextThread(there []*thread, others []*dump.Thread) (i int, mother *thread, flags uint64) {
	i = -1
	for n, o := range others {
		var need uint64
		for _, th := range there {
			need |= sharedFlags(th.record, o)
		}
		if need == 0 && i >= 0 {
			continue
		}
		for _, th := range there {
			if sharedFlags(th.record, o) == need {
				if i, mother, flags = n, th, need; need != 0 {
					return i, mother, flags
				}
				break
			}
		}
	}
	return i, mother, flags
}

// sharedFlags tells what two threads of a process share, of what they need not.
func sharedFlags(a, b *dump.Thread) (flags uint64) {
	if a.GetFdTable() == b.GetFdTable() {
		flags |= unix.CLONE_FILES
	}
	if a.GetFs().GetId() == b.GetFs().GetId() {
		flags |= unix.CLONE_FS
	}
	return flags
}

// findThreads finds out the tids of a process's threads here.
func (r *restorer) findThreads(p *process) error {
	if len(p.threads) == 1 {
		return nil
	}
	tasks, err := remote.Tasks(p.host)
	if err != nil {
		return err
	}
	here := make(map[uint32]int)
	for _, task := range tasks {
		status, err := object.ReadStatus(task)
		if err != nil {
			return err
		}
		tid, _, _ := status.Inside()
		here[uint32(tid)] = task
	}
	for _, th := range p.threads {
		th.host = here[th.record.GetTid()]
	}
	return nil
}

// endLeader ends the first thread of a process that goes on without it. What belongs to the whole process and only that thread can
// do, it does before. Nobody traces it: a tracer would be told of its end, and the parent not.
func (r *restorer) endLeader(ctx context.Context, p *process) error {
	leader := p.threads[0]
	b := p.page.Batch()
	if err := r.composeProcess(b, p); err != nil {
		return err
	}
	task.RestoreEnded(b, leader.record)
	task.RestoreCreds(b, leader.record.GetCreds(), false, r.Bound)
	b.Call("end the first thread", unix.SYS_EXIT, leader.record.GetWaitStatus()>>8)
	if err := b.Start(); err != nil {
		return err
	}
	for {
		s, err := object.ReadStatus(p.host)
		switch {
		case err != nil:
			return err
		case s.State == 'Z':
			p.threads = p.threads[1:]
			p.page = p.threads[0].page
			return nil
		case leader.page.Done():
			return fmt.Errorf("end the first thread: %w", b.Err())
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		nap(50 * time.Microsecond)
	}
}
