package ipc

import (
	"fmt"
	"math"
	"strings"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/remote"
)

// Check looks at everything in the records of a set that is used later.
func Check(set *object.Set) error {
	for id, seg := range set.ShmSegments {
		m := set.Memories[seg.GetMemory()]
		switch {
		case !isID(id) || seg.GetSize() == 0 || seg.GetSize() > math.MaxInt64-pageSize:
			return fmt.Errorf("shared memory segment %d: id or size %d is not valid", id, seg.GetSize())
		case m == nil || m.GetKind() != dump.Memory_SYSV || m.GetSize() != wholePages(seg.GetSize()):
			return fmt.Errorf("shared memory segment %d: there is no memory %d with its content", id, seg.GetMemory())
		case max(seg.GetCreator(), seg.GetLast()) >= object.MaxPID:
			return fmt.Errorf("shared memory segment %d: pids %d and %d", id, seg.GetCreator(), seg.GetLast())
		}
	}
	for id, queue := range set.MsgQueues {
		if !isID(id) || max(queue.GetSender(), queue.GetReceiver()) >= object.MaxPID {
			return fmt.Errorf("message queue %d: id or pids %d and %d are not valid", id, queue.GetSender(), queue.GetReceiver())
		}
	}
	for id, q := range set.Mqueues {
		name, n := q.GetName(), q.GetNotify()
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("POSIX message queue %d: name %.100q is not valid", id, name)
		}
		if n != nil && n.GetNotify() != linux.SIGEV_SIGNAL && n.GetNotify() != linux.SIGEV_NONE {
			return fmt.Errorf("POSIX message queue %d: notification %d: %w", id, n.GetNotify(), object.ErrUnsupported)
		}
	}
	return checkSemaphores(set)
}

func isID(record uint64) bool { return record > 0 && record <= math.MaxInt32 }

func checkSemaphores(set *object.Set) error {
	for id, sems := range set.SemSets {
		if !isID(id) || len(sems.GetSemaphores()) == 0 {
			return fmt.Errorf("semaphore set %d: id or number of semaphores is not valid", id)
		}
		for i, s := range sems.GetSemaphores() {
			if s.GetValue() > linux.SEMVMX || s.GetPid() >= object.MaxPID {
				return fmt.Errorf("semaphore set %d: semaphore %d: value %d or pid %d", id, i, s.GetValue(), s.GetPid())
			}
		}
	}
	for pid, p := range set.Processes {
		for _, undo := range p.GetSemUndos() {
			if len(undo.GetAdjust()) != len(set.SemSets[undo.GetSet()].GetSemaphores()) {
				return fmt.Errorf("process %d: semaphore set %d is not there, or another", pid, undo.GetSet())
			}
			for _, adjust := range undo.GetAdjust() {
				if adjust < -linux.SEMVMX || adjust > linux.SEMVMX {
					return fmt.Errorf("process %d: semaphore set %d: adjustment %d", pid, undo.GetSet(), adjust)
				}
			}
		}
	}
	return nil
}

// CheckMapping looks at an attachment of shared memory.
func CheckMapping(set *object.Set, m *dump.Mapping) error {
	seg := set.ShmSegments[m.GetShm()]
	size := wholePages(seg.GetSize())
	switch length := m.GetEnd() - m.GetStart(); {
	case seg == nil:
		return fmt.Errorf("there is no shared memory segment %d", m.GetShm())
	case !m.GetShared() || m.GetOffset()%pageSize != 0 || m.GetOffset() > size || length > size-m.GetOffset():
		return fmt.Errorf("shared memory segment %d: offset %#x is not in it", m.GetShm(), m.GetOffset())
	case m.GetOffset() > m.GetStart() || m.GetStart()-m.GetOffset()+size > remote.TaskSize:
		return fmt.Errorf("shared memory segment %d: not possible", m.GetShm())
	}
	return nil
}
