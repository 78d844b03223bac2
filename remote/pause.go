package remote

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// PutBack has a call made again that answers EINTR to a mere stop, unless a signal is due. The thread is stopped on its way out of
// the kernel.
func (th *Thread) PutBack() error {
	regs, err := th.Registers()
	if err != nil {
		return err
	}
	if !regs.Interrupted() {
		return nil
	}
	due, err := th.signalDue()
	if err != nil || due {
		return err
	}
	regs.Rewind()
	th.state = nil
	return th.SetRegisters(regs)
}

func (th *Thread) signalDue() (bool, error) {
	mask, err := th.SigMask()
	if err != nil {
		return false, err
	}
	for _, process := range []bool{false, true} {
		pending, err := th.Pending(process)
		if err != nil {
			return false, err
		}
		for _, info := range pending {
			if mask&(1<<(info[0]-1)) == 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

// stopPatience is how long a thread may take to stop: one that waits for a disk, or in vfork(2), does not.
const stopPatience = 20 * time.Millisecond

// Pause stops a running process, all threads of it, calls f with them, the first thread first, and lets them go on. The calls that
// the stop interrupts are made again. It is [ErrStuck] if a thread does not stop soon.
func Pause(pid int, f func(threads []*Thread) error) error {
	return Trace(func(t *Tracer) error { return t.pause(pid, f) })
}

func (t *Tracer) pause(pid int, f func([]*Thread) error) error {
	var threads []*Thread
	full := t.Patience
	t.Patience = stopPatience
	err := t.stopAll(pid, &threads)
	t.Patience = full // from now on they have our registers at times, and are not left so because the machine is busy
	if err == nil {
		if i := slices.IndexFunc(threads, func(th *Thread) bool { return th.TID == pid }); i > 0 {
			threads[0], threads[i] = threads[i], threads[0]
		}
		err = f(threads)
	}
	return errors.Join(err, t.detachAll())
}

// stopAll stops the threads of a process, until no new one comes, and appends them to the list.
func (t *Tracer) stopAll(pid int, stopped *[]*Thread) error {
	for {
		tids, err := Tasks(pid)
		if err != nil {
			return err
		}
		var news []*Thread
		for _, tid := range tids {
			if t.threads[tid] != nil {
				continue
			}
			th, err := t.Seize(tid, false)
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			if err == nil {
				err = th.Interrupt()
			}
			if err != nil {
				return err
			}
			news = append(news, th)
		}
		if len(news) == 0 {
			if len(*stopped) == 0 {
				return fmt.Errorf("stop process %d: %w", pid, ErrGone)
			}
			return nil
		}
		for _, th := range news {
			err := th.WaitStop()
			if errors.Is(err, ErrGone) {
				continue
			}
			if err != nil {
				return err
			}
			*stopped = append(*stopped, th)
			if err := th.PutBack(); err != nil {
				return err
			}
		}
	}
}

// Open makes a system call in a stopped thread that returns a descriptor, by a syscall instruction at the given address
// ([FindSyscall]), and takes the descriptor out of its process, of which pidfd is: nothing stays there.
func (th *Thread) Open(pidfd int, at uint64, nr int, args ...uint64) (*os.File, error) {
	saved, err := th.State()
	if err != nil {
		return nil, err
	}
	var file *os.File
	fd, err := th.call(at, nr, args...)
	if err == nil {
		var own int
		if own, err = unix.PidfdGetfd(pidfd, int(fd), 0); err == nil {
			file = os.NewFile(uintptr(own), "taken")
		}
		_, cerr := th.call(at, unix.SYS_CLOSE, fd)
		err = errors.Join(err, cerr)
	}
	if err = errors.Join(err, th.back(saved)); err != nil && file != nil {
		file.Close()
		file = nil
	}
	return file, err
}
