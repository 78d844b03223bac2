package ipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// Restorer restores the ipc namespace of an instance, and the open files of its POSIX message queues.
type Restorer struct {
	*file.Files
	content object.Content
	s       *remote.Script
	next    map[string]*os.File // the kernel's files for ids that are to be given, by the names of their kinds
	opened  map[uint64]int      // descriptors of the maker, by Mqueue records
}

// NewRestorer makes the ipc namespace's part of a restore. [Restorer.Complete] is to be called too.
func NewRestorer(files *file.Files, content object.Content) *Restorer {
	return &Restorer{Files: files, content: content, next: make(map[string]*os.File), opened: make(map[uint64]int)}
}

// Needs counts settings and queues.
func (r *Restorer) Needs() int { return len(ipcSysctls) + len(r.Set().Mqueues) }

// Make sets what the namespace has to be set to, and makes its objects.
func (r *Restorer) Make(s *remote.Script) error {
	r.s = s
	if err := r.setSysctls(); err != nil {
		return err
	}
	if err := r.openNext(); err != nil {
		return err
	}
	set := r.Set()
	for _, id := range object.SortedIDs(set.ShmSegments) {
		what := fmt.Sprintf("shared memory segment %d", id-1)
		s.About("%s", what)
		if err := r.makeSegment(set.ShmSegments[id]); err != nil {
			return file.Named(what, err)
		}
	}
	for _, id := range object.SortedIDs(set.SemSets) {
		what := fmt.Sprintf("semaphore set %d", id-1)
		s.About("%s", what)
		if err := r.makeSet(set.SemSets[id]); err != nil {
			return file.Named(what, err)
		}
	}
	for _, id := range object.SortedIDs(set.MsgQueues) {
		what := fmt.Sprintf("message queue %d", id-1)
		s.About("%s", what)
		if err := r.makeQueue(set.MsgQueues[id]); err != nil {
			return file.Named(what, err)
		}
	}
	return r.makeMqueues()
}

// Finish has nothing to do yet.
func (r *Restorer) Finish(context.Context, *remote.Script) error { return nil }

// Born lets processes operate on semaphores, which the kernel remembers.
func (r *Restorer) Born(ctx context.Context, stubs file.Stubs) error { return r.operate(ctx, stubs) }

// Close closes what it holds in our process.
func (r *Restorer) Close() error {
	var errs []error
	for _, f := range r.next {
		errs = append(errs, f.Close())
	}
	r.next = nil
	return errors.Join(errs...)
}

// openNext opens the files by which the next object of a kind gets a certain id: CONFIG_CHECKPOINT_RESTORE of ipc/ipc_sysctl.c.
func (r *Restorer) openNext() error {
	if set := r.Set(); len(set.ShmSegments)+len(set.SemSets)+len(set.MsgQueues)+len(set.Instance.GetSysctl()) == 0 {
		return nil
	}
	return object.InNamespace(r.PID(), "ipc", unix.CLONE_NEWIPC, func() error {
		for _, kind := range []string{"shm", "sem", "msg"} {
			f, err := os.OpenFile("/proc/sys/kernel/"+kind+"_next_id", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			r.next[kind] = f
		}
		return nil
	})
}

// setNext has the next object of a kind get an id.
func (r *Restorer) setNext(kind string, id int) error {
	_, err := r.next[kind].WriteAt(strconv.AppendInt(nil, int64(id), 10), 0)
	return err
}

// create makes an object with its id by its creator's own call.
func (r *Restorer) create(kind string, id uint64, perm *dump.IpcPerm, creator int, call func(b *remote.Batch, flags int) remote.Result) error {
	const modeBits = 0o777
	if err := r.s.Run(); err != nil {
		return err
	}
	if err := r.setNext(kind, int(id-1)); err != nil {
		return err
	}
	var made remote.Result
	author := object.Author{PID: creator, UID: perm.GetCuid(), GID: perm.GetCgid()}
	b := r.Maker().As(r.s, author, func(b *remote.Batch) {
		made = call(b, unix.IPC_CREAT|unix.IPC_EXCL|int(perm.GetMode())&modeBits)
	})
	if err := r.s.Run(); err != nil {
		return err
	}
	if got, err := b.Value(made); err != nil {
		return err
	} else if uint64(got)+1 != id {
		return fmt.Errorf("it got id %d: %w", got, unix.EEXIST)
	}
	return nil
}

// perm is struct ipc64_perm with what IPC_SET takes.
func perm(p *dump.IpcPerm) unix.SysvIpcPerm {
	return unix.SysvIpcPerm{Uid: p.GetUid(), Gid: p.GetGid(), Mode: p.GetMode() & 0o777}
}

// given tells whether an object has been given to somebody else than its creator.
func given(p *dump.IpcPerm) bool { return p.GetUid() != p.GetCuid() || p.GetGid() != p.GetCgid() }

func (r *Restorer) makeSegment(seg *dump.ShmSegment) error {
	key, size, id := r.key(seg), seg.GetSize(), int(seg.GetId()-1)
	err := r.create("shm", seg.GetId(), seg.GetPerm(), r.Set().Known(seg.GetCreator()), func(b *remote.Batch, flags int) remote.Result {
		return b.Call("shmget", unix.SYS_SHMGET, key, size, flags)
	})
	if err != nil {
		return err
	}
	b := r.s.Room(1024)
	attached := b.Call("attach", unix.SYS_SHMAT, id, 0, 0)
	if err := r.s.Run(); err != nil {
		return err
	}
	at, err := b.Value(attached)
	if err != nil {
		return err
	}
	if err := r.fillSegment(seg, uint64(at)); err != nil {
		return err
	}
	b = r.s.Room(1024)
	b.Call("detach", unix.SYS_SHMDT, at)
	if given(seg.GetPerm()) {
		b.Call("set owner", unix.SYS_SHMCTL, id, unix.IPC_SET, object.Place(b, &unix.SysvShmDesc{Perm: perm(seg.GetPerm())}))
	}
	if seg.GetPerm().GetMode()&linux.SHM_LOCKED != 0 {
		b.Call("lock", unix.SYS_SHMCTL, id, linux.SHM_LOCK, 0)
	}
	return nil
}

// key is the key with which a segment is made. One that is going to be destroyed is called by the key that it had, if no other one
// has that.
func (r *Restorer) key(seg *dump.ShmSegment) int32 {
	if seg.GetPerm().GetMode()&linux.SHM_DEST == 0 {
		return seg.GetPerm().GetKey()
	}
	for id, other := range r.Set().ShmSegments {
		if id != seg.GetId() && (other.GetPerm().GetKey() == seg.GetFirstKey() || other.GetFirstKey() == seg.GetFirstKey()) {
			return 0 // IPC_PRIVATE
		}
	}
	return seg.GetFirstKey()
}

// fillSegment fills a segment that the maker has attached.
func (r *Restorer) fillSegment(seg *dump.ShmSegment, at uint64) error {
	f, err := openMapped(r.PID(), at, seg.GetSize(), os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := openContent(f, seg.GetSize())
	if err != nil {
		return err
	}
	defer c.close()
	return r.content.Fill(seg.GetMemory(), c)
}

func (r *Restorer) makeQueue(q *dump.MsgQueue) error {
	id := int(q.GetId() - 1)
	sender, receiver := r.Set().Known(q.GetSender()), r.Set().Known(q.GetReceiver())
	creator := 1 // it is not shown
	if q.GetSender() != 0 {
		creator = sender
	}
	err := r.create("msg", q.GetId(), q.GetPerm(), creator, func(b *remote.Batch, flags int) remote.Result {
		return b.Call("msgget", unix.SYS_MSGGET, q.GetPerm().GetKey(), flags)
	})
	if err != nil {
		return err
	}
	b := r.s.Room(1024)
	b.Call("set owner and size", unix.SYS_MSGCTL, id, unix.IPC_SET,
		object.Place(b, &linux.MsqidDs{Perm: perm(q.GetPerm()), Qbytes: q.GetMaxBytes()}))
	if q.GetReceiver() != 0 { // one message for the sake of the pids
		r.as(sender, func(b *remote.Batch) { b.Call("msgsnd", unix.SYS_MSGSND, id, b.Words(1), 0, unix.IPC_NOWAIT) })
		r.as(receiver, func(b *remote.Batch) { b.Call("msgrcv", unix.SYS_MSGRCV, id, b.Words(0), 0, 0, unix.IPC_NOWAIT) })
	}
	for queue := q.GetQueue(); len(queue) > 0; {
		n, size := 0, 0
		for ; n < len(queue) && (n == 0 || size+len(queue[n].GetData()) < atOnce); n++ {
			size += len(queue[n].GetData()) + 128 // with its call and type
		}
		r.as(sender, func(b *remote.Batch) {
			for _, m := range queue[:n] {
				text := append(binary.LittleEndian.AppendUint64(nil, uint64(m.GetType())), m.GetData()...)
				b.Call("msgsnd", unix.SYS_MSGSND, id, b.Data(text), len(m.GetData()), unix.IPC_NOWAIT)
			}
		})
		queue = queue[n:]
	}
	return r.s.Run()
}

// atOnce is how many bytes of messages one batch has, if it has more than one message.
const atOnce = 32 << 10

// as has calls made by a process with a pid, as root.
func (r *Restorer) as(pid int, calls func(b *remote.Batch)) *remote.Batch {
	return r.Maker().As(r.s, object.Author{PID: pid}, calls)
}

// Complete does what must wait until every process has its memory and descriptors.
func (r *Restorer) Complete(ctx context.Context, stubs file.Stubs) error {
	for _, id := range object.SortedIDs(r.Set().ShmSegments) {
		if err := r.finishSegment(ctx, r.Set().ShmSegments[id], stubs); err != nil {
			return fmt.Errorf("shared memory segment %d: %w", id-1, err)
		}
	}
	if err := r.notify(ctx, stubs); err != nil {
		return err
	}
	page, pidfd := stubs(1)
	return r.setLateSysctls(ctx, page, pidfd)
}

// finishSegment lets the process that has used a segment last do so, and marks one that goes with its last attachment.
func (r *Restorer) finishSegment(ctx context.Context, seg *dump.ShmSegment, stubs file.Stubs) error {
	id := int(seg.GetId() - 1)
	use := func(b *remote.Batch) {
		at := b.Call("attach", unix.SYS_SHMAT, id, 0, 0)
		b.Call("detach", unix.SYS_SHMDT, at)
	}
	var err error
	if page, pidfd := stubs(int(seg.GetLast())); page != nil {
		b := page.Batch()
		use(b)
		err = b.Run(ctx, pidfd)
	} else if seg.GetLast() != 0 {
		s := r.Maker().Page.Script(ctx, r.Maker().PidFD)
		r.Maker().As(s, object.Author{PID: int(seg.GetLast())}, use)
		err = s.Run()
	}
	if err != nil {
		return err
	}
	if seg.GetPerm().GetMode()&linux.SHM_DEST == 0 {
		return nil
	}
	return object.InNamespace(r.PID(), "ipc", unix.CLONE_NEWIPC, func() error {
		_, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		return err
	})
}
