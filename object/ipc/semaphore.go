package ipc

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// makeSet makes semaphores with the values that they had before the operations that are to be undone.
func (r *Restorer) makeSet(set *dump.SemSet) error {
	id, sems := int(set.GetId()-1), set.GetSemaphores()
	author := r.Set().Known(sems[0].GetPid())
	err := r.create("sem", set.GetId(), set.GetPerm(), author, func(b *remote.Batch, flags int) remote.Result {
		return b.Call("semget", unix.SYS_SEMGET, set.GetPerm().GetKey(), len(sems), flags)
	})
	if err != nil {
		return err
	}
	before := r.valuesBefore(set)
	byPID := make(map[int][]int)
	for i, s := range sems {
		if s.GetPid() != 0 || before[i] != 0 {
			pid := r.Set().Known(s.GetPid())
			byPID[pid] = append(byPID[pid], i)
		}
	}
	const atOnce = 256 // calls
	for pid, list := range byPID {
		for len(list) > 0 {
			part := list[:min(len(list), atOnce)]
			list = list[len(part):]
			r.as(pid, func(b *remote.Batch) {
				for _, i := range part {
					b.Call("set semaphore", unix.SYS_SEMCTL, id, i, linux.SETVAL, int(before[i]))
				}
			})
		}
	}
	if set.GetOtime() != 0 { // programs wait for the first operation on a set (semget(2))
		r.as(author, func(b *remote.Batch) { touch(b, id, 0, before[0]) })
	}
	if given(set.GetPerm()) {
		b := r.s.Room(512)
		b.Call("set owner", unix.SYS_SEMCTL, id, 0, unix.IPC_SET, object.Place(b, &linux.SemidDs{Perm: perm(set.GetPerm())}))
	}
	return nil
}

// touch adds an operation that leaves a semaphore as it is.
func touch(b *remote.Batch, id, num int, value int32) {
	up, down := linux.Sembuf{Num: uint16(num), Op: 1, Flg: unix.IPC_NOWAIT}, linux.Sembuf{Num: uint16(num), Op: -1, Flg: unix.IPC_NOWAIT}
	ops := [2]linux.Sembuf{up, down}
	if value == linux.SEMVMX {
		ops = [2]linux.Sembuf{down, up}
	}
	b.Call("operate on semaphore", unix.SYS_SEMOP, id, object.Place(b, &ops), len(ops))
}

// valuesBefore returns what the semaphores of a set were before the operations that are to be undone.
func (r *Restorer) valuesBefore(set *dump.SemSet) []int32 {
	values := make([]int32, len(set.GetSemaphores()))
	for i, s := range set.GetSemaphores() {
		values[i] = int32(s.GetValue())
	}
	for _, p := range r.Set().Processes {
		for _, undo := range p.GetSemUndos() {
			if undo.GetSet() == set.GetId() {
				for i, adjust := range undo.GetAdjust() {
					values[i] += adjust
				}
			}
		}
	}
	return values
}

// operate has each process make the operations that its end undoes: first those that add to a semaphore, so that it is never
// less than 0. All processes have been born.
func (r *Restorer) operate(ctx context.Context, stubs file.Stubs) error {
	for _, add := range []bool{true, false} {
		for _, pid := range object.SortedIDs(r.Set().Processes) {
			for _, undo := range r.Set().Processes[pid].GetSemUndos() {
				page, pidfd := stubs(int(pid))
				if page == nil {
					return fmt.Errorf("pid %d: semaphore operations of a process that is not there", pid)
				}
				s := page.Script(ctx, pidfd)
				for i, adjust := range undo.GetAdjust() {
					if adjust == 0 || (adjust < 0) != add {
						continue
					}
					b := s.Room(512)
					op := linux.Sembuf{Num: uint16(i), Op: int16(-adjust), Flg: linux.SEM_UNDO | unix.IPC_NOWAIT}
					b.Call("operate on semaphore", unix.SYS_SEMOP, int(undo.GetSet()-1), object.Place(b, &op), 1)
				}
				if err := s.Run(); err != nil {
					return fmt.Errorf("pid %d: %w", pid, err)
				}
			}
		}
	}
	return r.touchLast(ctx, stubs)
}

// touchLast has semaphores show the process that has operated on them last, where another has done so now.
func (r *Restorer) touchLast(ctx context.Context, stubs file.Stubs) error {
	for _, pid := range object.SortedIDs(r.Set().Processes) {
		for _, undo := range r.Set().Processes[pid].GetSemUndos() {
			set := r.Set().SemSets[undo.GetSet()]
			for i, adjust := range undo.GetAdjust() {
				last := set.GetSemaphores()[i]
				page, pidfd := stubs(int(last.GetPid()))
				if adjust == 0 || page == nil {
					continue
				}
				b := page.Batch()
				touch(b, int(set.GetId()-1), i, int32(last.GetValue()))
				if err := b.Run(ctx, pidfd); err != nil {
					return fmt.Errorf("pid %d: %w", last.GetPid(), err)
				}
			}
		}
	}
	return nil
}
