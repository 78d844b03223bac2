package ipc

import (
	"fmt"

	"vps/dump"
	"vps/kmem"
	"vps/object"
	"vps/remote"
)

// Undos returns what the end of each process does to the semaphores, by pid here (semop(2), SEM_UNDO). No system call tells
// that: without a reader of the kernel's memory, semaphores are refused.
func (o *Objects) Undos(kernel *kmem.Reader, procs []object.Proc) (map[int][]*dump.SemUndo, error) {
	undos := make(map[int][]*dump.SemUndo)
	if len(o.sets) == 0 {
		return undos, nil
	}
	if kernel == nil {
		return nil, &object.Refusal{FD: -1, Object: fmt.Sprintf("semaphore set %d", o.sets[0].Id-1),
			Why: "what processes undo at their end cannot be read without BPF"}
	}
	w := kernel.Walk()
	tasks := w.Tasks()
	owners := make(map[uint64]int) // of undo lists, by their addresses
	for _, p := range procs {
		tids, err := remote.Tasks(p.Host)
		if err != nil {
			return nil, err
		}
		for _, tid := range tids {
			task, ok := tasks[tid]
			if !ok {
				continue
			}
			list := task.Member("sysvsem", "undo_list").Deref()
			found := o.readUndos(list)
			if len(found) == 0 {
				continue
			}
			if owner := owners[list.Address()]; owner == p.PID {
				continue
			} else if owner != 0 || tid != p.Task() {
				return nil, &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1,
					Object: "undoing of semaphore operations (SEM_UNDO) shared with another process, or by a single thread"}
			}
			owners[list.Address()], undos[p.Host] = p.PID, found
		}
	}
	return undos, w.Err()
}

// readUndos reads a struct sem_undo_list (ipc/sem.c).
func (o *Objects) readUndos(list kmem.Value) []*dump.SemUndo {
	if list.Null() {
		return nil
	}
	var undos []*dump.SemUndo
	for u := range list.Member("list_proc").List("sem_undo", "list_proc") {
		id := recordID(int(int32(u.Member("semid").Uint()))) // -1: the set is gone
		for _, set := range o.sets {
			if set.Id != id {
				continue
			}
			undo := &dump.SemUndo{Set: id}
			any := false
			for i := range set.Semaphores {
				adjust := int32(int16(u.Member("semadj").Index(i).Uint()))
				any = any || adjust != 0
				undo.Adjust = append(undo.Adjust, adjust)
			}
			if any {
				undos = append(undos, undo)
			}
		}
	}
	return undos
}
