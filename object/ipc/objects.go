// Package ipc has the ipc namespace: System V objects, POSIX message queues and their settings.
//
// Objects are read on a thread in the namespace. They are made by the maker, or by a child of it with the ids and the pid that the
// kernel is to show of their creator.
package ipc

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// Objects are the System V objects of an instance that is being dumped (svipc(7)).
type Objects struct {
	init     int // pid of the instance's init, here
	files    *file.Descriptors
	segments []*segment
	sets     []*dump.SemSet
	queues   []*dump.MsgQueue

	questions []question // to be asked; nil: not made yet
}

// Read lists the System V objects of an instance, with all but the content of shared memory. Its tasks are stopped.
func Read(files *file.Descriptors) (*Objects, error) {
	o := &Objects{init: files.Init(), files: files}
	err := o.inside(func() error { return errors.Join(o.readSegments(), o.readSets(), o.readQueues()) })
	if err != nil {
		return nil, fmt.Errorf("objects of System V: %w", err)
	}
	return o, nil
}

// inside runs f in the ipc namespace.
func (o *Objects) inside(f func() error) error {
	return object.InNamespace(o.init, "ipc", unix.CLONE_NEWIPC, f)
}

// recordID is the id of an object's record.
func recordID(id int) uint64 { return uint64(id) + 1 }

// each calls visit for every object of a kind; stat gives the id of the one at an index (SHM_STAT_ANY and its like).
func each(last int, err error, stat func(index int) (id int, err error), visit func(id int) error) error {
	if err != nil {
		return err
	}
	for index := range last + 1 {
		id, err := stat(index)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
			continue // there is none
		}
		if err == nil {
			err = visit(id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *Objects) perm(p *unix.SysvIpcPerm) (*dump.IpcPerm, error) {
	out := &dump.IpcPerm{Key: p.Key, Mode: p.Mode}
	var err error
	if out.Uid, out.Gid, err = o.files.Owned(&unix.Stat_t{Uid: p.Uid, Gid: p.Gid}); err != nil {
		return nil, err
	}
	out.Cuid, out.Cgid, err = o.files.Owned(&unix.Stat_t{Uid: p.Cuid, Gid: p.Cgid})
	return out, err
}

func (o *Objects) pid(here int32) uint32 { return uint32(o.files.Inside(int(here))) }

func (o *Objects) readSets() error {
	var ds linux.SemidDs
	last, err := linux.Semctl(0, 0, linux.SEM_INFO, unsafe.Pointer(&ds)) // struct seminfo is smaller
	stat := func(index int) (int, error) { return linux.Semctl(index, 0, linux.SEM_STAT_ANY, unsafe.Pointer(&ds)) }
	return each(last, err, stat, func(id int) error {
		set := &dump.SemSet{Id: recordID(id), Otime: ds.Otime}
		var err error
		if set.Perm, err = o.perm(&ds.Perm); err != nil {
			return fmt.Errorf("semaphore set %d: %w", id, err)
		}
		values := make([]uint16, ds.Nsems)
		if _, err := linux.Semctl(id, 0, linux.GETALL, unsafe.Pointer(&values[0])); err != nil {
			return fmt.Errorf("semaphore set %d: GETALL: %w", id, err)
		}
		for i, value := range values {
			pid, err := linux.Semctl(id, i, linux.GETPID, nil)
			if err != nil {
				return fmt.Errorf("semaphore set %d: GETPID: %w", id, err)
			}
			set.Semaphores = append(set.Semaphores, &dump.Semaphore{Value: uint32(value), Pid: o.pid(int32(pid))})
		}
		o.sets = append(o.sets, set)
		return nil
	})
}

func (o *Objects) readQueues() error {
	var ds linux.MsqidDs
	last, err := linux.Msgctl(0, linux.MSG_INFO, &ds) // struct msginfo is smaller
	stat := func(index int) (int, error) { return linux.Msgctl(index, linux.MSG_STAT_ANY, &ds) }
	return each(last, err, stat, func(id int) error {
		queue := &dump.MsgQueue{Id: recordID(id), MaxBytes: ds.Qbytes, Sender: o.pid(ds.Lspid), Receiver: o.pid(ds.Lrpid)}
		var err error
		if queue.Perm, err = o.perm(&ds.Perm); err != nil {
			return fmt.Errorf("message queue %d: %w", id, err)
		}
		buf := make([]byte, 8+max(ds.Cbytes, 1))
		for n := range int(ds.Qnum) {
			size, err := linux.MsgCopy(id, n, buf)
			if err != nil {
				return fmt.Errorf("message queue %d: message %d: %w", id, n, err)
			}
			queue.Queue = append(queue.Queue, &dump.IpcMessage{
				Type: *(*int64)(unsafe.Pointer(&buf[0])), Data: append([]byte(nil), buf[8:8+size]...),
			})
		}
		o.queues = append(o.queues, queue)
		return nil
	})
}

// Ask asks init for the pids that the objects show: only inside does the kernel tell those of processes that have ended.
// more says that there was not room for all: it is to be called again, after answer.
func (o *Objects) Ask(b *remote.Batch) (answer func() error, more bool) {
	const room = 16 << 10 // for a call, what it answers, and the signal frame of a batch
	if o.questions == nil {
		o.questions = o.ask()
	}
	var answers []func()
	for len(o.questions) > 0 && b.Room() >= room {
		answers = append(answers, o.questions[0](b))
		o.questions = o.questions[1:]
	}
	return func() error {
		for _, answer := range answers {
			answer()
		}
		return nil
	}, len(o.questions) > 0
}

// question adds a call to a batch, and returns what takes its answer.
type question func(b *remote.Batch) (answer func())

func (o *Objects) ask() []question {
	list := []question{}
	for _, s := range o.segments {
		list = append(list, func(b *remote.Batch) func() {
			at, read := object.Space[unix.SysvShmDesc](b)
			stat := b.Try("get segment", unix.SYS_SHMCTL, s.id(), unix.IPC_STAT, at)
			return func() {
				if _, err := b.Value(stat); err == nil {
					s.record.Creator, s.record.Last = uint32(read().Cpid), uint32(read().Lpid)
				}
			}
		})
	}
	for _, q := range o.queues {
		list = append(list, func(b *remote.Batch) func() {
			at, read := object.Space[linux.MsqidDs](b)
			stat := b.Try("get queue", unix.SYS_MSGCTL, int(q.Id-1), unix.IPC_STAT, at)
			return func() {
				if _, err := b.Value(stat); err == nil {
					q.Sender, q.Receiver = uint32(read().Lspid), uint32(read().Lrpid)
				}
			}
		})
	}
	for _, set := range o.sets {
		for i, s := range set.Semaphores {
			list = append(list, func(b *remote.Batch) func() {
				pid := b.Try("get pid of semaphore", unix.SYS_SEMCTL, int(set.Id-1), i, linux.GETPID)
				return func() {
					if v, err := b.Value(pid); err == nil {
						s.Pid = uint32(v)
					}
				}
			})
		}
	}
	return list
}

// Dump writes the objects. mms are the address spaces of the processes, by pid here.
func (o *Objects) Dump(sink object.Sink, mms map[int]*dump.Mm) error {
	for _, set := range o.sets {
		if err := sink.Put(set.Id, set); err != nil {
			return err
		}
	}
	for _, q := range o.queues {
		if err := sink.Put(q.Id, q); err != nil {
			return err
		}
	}
	if len(o.segments) == 0 {
		return nil
	}
	o.findAttachments(mms)
	return o.inside(func() error {
		for _, s := range o.segments {
			if err := s.dump(sink); err != nil {
				return fmt.Errorf("shared memory segment %d: %w", s.id(), err)
			}
		}
		return nil
	})
}

// Probe refuses an instance, whose init is given by its pid here, with System V objects that cannot be dumped.
func Probe(init int) []error {
	var refusals []error
	err := object.InNamespace(init, "ipc", unix.CLONE_NEWIPC, func() error {
		forced, err := os.ReadFile("/proc/sys/kernel/shm_rmid_forced")
		if err != nil || string(forced) == "0\n" {
			return err
		}
		var ds unix.SysvShmDesc
		last, err := unix.SysvShmCtl(0, linux.SHM_INFO, &ds)
		stat := func(index int) (int, error) { return unix.SysvShmCtl(index, linux.SHM_STAT_ANY, &ds) }
		return each(last, err, stat, func(id int) error {
			if ds.Nattch == 0 {
				refusals = append(refusals, &object.Refusal{FD: -1, Object: fmt.Sprintf("shared memory segment %d", id),
					Why: "attached to no process, while kernel.shm_rmid_forced is set"})
			}
			return nil
		})
	})
	if err != nil {
		refusals = append(refusals, err)
	}
	return refusals
}
