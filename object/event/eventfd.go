package event

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/file"
	"vps/remote"
)

func dumpEventFd(f *file.OpenFile, l *file.Look) error {
	count, err := l.Hex("eventfd-count")
	if err != nil {
		return err
	}
	e := &dump.EventFd{Count: count}
	switch l.Line("eventfd-semaphore") { // since Linux 6.5
	case "0":
	case "1":
		e.Semaphore = true
	default:
		if e.Semaphore, err = isSemaphore(l.FD, count); err != nil {
			return fmt.Errorf("eventfd: %w", err)
		}
	}
	f.Record.Kind = &dump.File_Eventfd{Eventfd: e}
	return nil
}

// isSemaphore finds out by use whether an eventfd gives its count one by one, and leaves it with the same count.
func isSemaphore(fd int, count uint64) (bool, error) {
	const enough = 2
	var buf [8]byte
	extra := uint64(0)
	if count < enough {
		extra = enough
		binary.NativeEndian.PutUint64(buf[:], extra)
		if _, err := unix.Write(fd, buf[:]); err != nil {
			return false, err
		}
	}
	if _, err := unix.Read(fd, buf[:]); err != nil {
		return false, err
	}
	got := binary.NativeEndian.Uint64(buf[:])
	semaphore := got == 1
	for left := count + extra - got; left > count; left-- {
		if _, err := unix.Read(fd, buf[:]); err != nil {
			return false, err
		}
		got++
	}
	if give := got - extra; give > 0 {
		binary.NativeEndian.PutUint64(buf[:], give)
		if _, err := unix.Write(fd, buf[:]); err != nil {
			return false, err
		}
	}
	return semaphore, nil
}

func (r *restorer) restoreEventFd(s *remote.Script, file *dump.File, fd int) {
	e := file.GetEventfd()
	flags := 0
	if e.GetSemaphore() {
		flags = unix.EFD_SEMAPHORE
	}
	b := s.Room(1024)
	b.Call("eventfd2", unix.SYS_EVENTFD2, 0, flags|unix.EFD_NONBLOCK)
	r.Settle(b, fd)
	if e.GetCount() != 0 {
		b.Call("write eventfd", unix.SYS_WRITE, fd, b.Words(e.GetCount()), 8)
	}
}
