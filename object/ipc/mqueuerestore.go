package ipc

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// makeMqueues makes the POSIX message queues, with all descriptors that are open on them: first those that are deleted, whose names
// others may have now.
func (r *Restorer) makeMqueues() error {
	queues := object.Sorted(r.Set().Mqueues)
	slices.SortStableFunc(queues, func(a, b *dump.Mqueue) int {
		return cmp.Compare(map[bool]int{true: 0, false: 1}[a.GetDeleted()], map[bool]int{true: 0, false: 1}[b.GetDeleted()])
	})
	for _, q := range queues {
		what := "message queue /" + q.GetName()
		r.s.About("%s", what)
		if err := r.makeMqueue(q); err != nil {
			return file.Named(what, err)
		}
	}
	return r.s.Run()
}

func (r *Restorer) makeMqueue(q *dump.Mqueue) error {
	fd := r.Stage()
	r.opened[q.GetId()] = fd
	attr := linux.MqAttr{Maxmsg: int64(q.GetMaxMessages()), Msgsize: int64(q.GetMaxSize())}
	open := func(b *remote.Batch) {
		b.Call("mq_open", unix.SYS_MQ_OPEN, b.String(q.GetName()), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NONBLOCK,
			q.GetMode()&0o777, object.Place(b, &attr))
		r.Settle(b, fd)
	}
	if child := r.Maker().Child; child != nil && q.GetUid() != 0 {
		// Its memory counts for its owner (getrlimit(2), RLIMIT_MSGQUEUE).
		r.s.Child(child, r.Set().Known(0), func(b *remote.Batch) {
			b.Call("become group of owner", unix.SYS_SETRESGID, q.GetGid(), q.GetGid(), q.GetGid())
			b.Call("become owner", unix.SYS_SETRESUID, q.GetUid(), q.GetUid(), q.GetUid())
			open(b)
			b.Call("set dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
		})
	} else {
		open(r.s.Room(2048))
	}
	r.s.Call("own", unix.SYS_FCHOWN, fd, q.GetUid(), q.GetGid())
	r.s.Call("set mode", unix.SYS_FCHMOD, fd, q.GetMode()&0o7777)
	for _, m := range q.GetQueue() {
		b := r.s.Room(1024 + len(m.GetData()))
		b.Call("mq_send", unix.SYS_MQ_TIMEDSEND, fd, b.Data(m.GetData()), len(m.GetData()), m.GetType(), 0)
	}
	for _, id := range object.SortedIDs(r.Set().Files) {
		if f := r.Set().Files[id]; r.Claims(f) && f.GetMqueue() == q.GetId() {
			at, err := r.FD(id)
			if err != nil {
				return err
			}
			const kept = unix.O_ACCMODE | unix.O_NONBLOCK
			b := r.s.Room(1024)
			b.Call("mq_open", unix.SYS_MQ_OPEN, b.String(q.GetName()), f.GetFlags()&kept, 0, 0)
			r.Settle(b, at)
		}
	}
	if q.GetDeleted() {
		b := r.s.Room(1024)
		b.Call("mq_unlink", unix.SYS_MQ_UNLINK, b.String(q.GetName()))
	}
	return r.s.Run()
}

// Claims claims the open files of queues.
func (r *Restorer) Claims(f *dump.File) bool {
	_, ok := f.GetKind().(*dump.File_Mqueue)
	return ok
}

// Restore finds a queue's open file made.
func (r *Restorer) Restore(_ *remote.Script, f *dump.File, _ int) error {
	if _, ok := r.opened[f.GetMqueue()]; !ok {
		return fmt.Errorf("there is no message queue %d", f.GetMqueue())
	}
	return nil
}

// notify has processes be told of messages (mq_notify(3)). Each has a descriptor for its queue: with the first that it closes, it
// is not told any more.
func (r *Restorer) notify(ctx context.Context, stubs file.Stubs) error {
	for _, id := range object.SortedIDs(r.Set().Mqueues) {
		q := r.Set().Mqueues[id]
		n := q.GetNotify()
		if n == nil {
			continue
		}
		page, pidfd := stubs(int(n.GetPid()))
		if page == nil {
			return fmt.Errorf("message queue /%s: pid %d, which is to be told of messages, is not there", q.GetName(), n.GetPid())
		}
		fd, ok := r.descriptor(q, uint64(n.GetPid()))
		if !ok {
			return fmt.Errorf("message queue /%s: pid %d, which is to be told of messages, does not have it open", q.GetName(), n.GetPid())
		}
		b := page.Batch()
		event := linux.Sigevent{Value: n.GetValue(), Signal: n.GetSignal(), Notify: n.GetNotify()}
		b.Call("mq_notify", unix.SYS_MQ_NOTIFY, fd, object.Place(b, &event))
		if err := b.Run(ctx, pidfd); err != nil {
			return fmt.Errorf("message queue /%s: pid %d: %w", q.GetName(), n.GetPid(), err)
		}
	}
	return nil
}

// descriptor finds a descriptor of a process that is open on a queue.
func (r *Restorer) descriptor(q *dump.Mqueue, pid uint64) (int, bool) {
	for _, fd := range r.Set().FdTables[r.Set().Processes[pid].GetFdTable()].GetFds() {
		f := r.Set().Files[fd.GetFile()]
		if f.GetMqueue() == q.GetId() || path.Base(f.GetPath().GetPath()) == q.GetName() {
			return int(fd.GetFd()), true
		}
	}
	return -1, false
}
