// Package reaper tells how the processes that a cell's keeper is parent of have ended. The keeper, which nobody has to be alive for,
// writes what waitid(2) tells it to a file; Statuses reads that.
package reaper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Size is the length of a record, that of siginfo_t, asm-generic/siginfo.h.
const Size = 128

// ErrLost says that nobody knows how a process ended, since its keeper was killed.
var ErrLost = errors.New("the keeper has ended, the exit status is lost")

// Exit is how a process ended, sigaction(2).
type Exit struct {
	PID    int // on the host
	Code   int // CLD_EXITED, CLD_KILLED or CLD_DUMPED
	Status int // exit status or signal
}

// Codes of [Exit], asm-generic/siginfo.h.
const (
	Exited = 1 + iota
	Killed
	Dumped
)

// ExitCode is the exit status as a shell has it: 128 + n for signal n.
func (e Exit) ExitCode() int {
	if e.Code == Exited {
		return e.Status
	}
	return 128 + e.Status
}

// Process is a process of the instance that the keeper is parent of.
type Process struct {
	PID    int // on the host
	Inside int // in the instance

	pidfd *os.File
	done  chan struct{}
	exit  Exit
	err   error
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process. Errors: ErrLost, ctx's, or os.ErrClosed if the cell was closed.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-p.done:
		return p.exit, p.err
	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
}

// Signal sends a signal to the process; ESRCH if it has ended.
func (p *Process) Signal(sig unix.Signal) error {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return unix.ESRCH
	}
	var serr error
	if err := conn.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return unix.ESRCH // closed: it has ended
	}
	return serr
}

// Statuses reads what a keeper writes.
type Statuses struct {
	mu       sync.Mutex
	file     *os.File
	keeper   int // pidfd
	offset   int64
	freed    int64
	expected map[int]*Process
	ended    map[*Process]Exit
	closed   bool
}

// Open begins to read the statuses in a file that a keeper writes. keeper is the keeper's pidfd, and stays the caller's.
func Open(path string, keeper int) (*Statuses, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Statuses{file: file, keeper: keeper, expected: make(map[int]*Process), ended: make(map[*Process]Exit)}, nil
}

// Expect lets birth make a child of the keeper and begins to wait for its end. No status is read meanwhile, so that none is missed.
func (s *Statuses) Expect(birth func() (pid int, err error)) (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := birth()
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	return s.Watch(pid, fd), nil
}

// Watch waits for the end of a process with a non-blocking pidfd, which becomes its own.
func (s *Statuses) Watch(pid, fd int) *Process {
	p := &Process{PID: pid, pidfd: os.NewFile(uintptr(fd), fmt.Sprintf("process %d", pid)), done: make(chan struct{})}
	s.expected[pid] = p
	go func() {
		p.exit, p.err = s.await(p)
		p.pidfd.Close()
		close(p.done)
	}()
	return p
}

// Last reads from the file at path how the process with the given pid ended; ErrLost if it does not say.
func Last(path string, pid int) (Exit, error) {
	s, err := Open(path, -1)
	if err != nil {
		return Exit{}, errors.Join(ErrLost, err)
	}
	defer s.file.Close()
	p := &Process{PID: pid}
	s.expected[pid] = p
	e, ok, err := s.read(p)
	if err == nil && !ok {
		err = ErrLost
	}
	return e, err
}

// Over is a process that has ended already, as exit and err tell.
func Over(pid int, exit Exit, err error) *Process {
	p := &Process{PID: pid, done: make(chan struct{}), exit: exit, err: err}
	close(p.done)
	return p
}

// await waits for the end of a process and for its record, which the keeper writes a moment later.
func (s *Statuses) await(p *Process) (Exit, error) {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return Exit{}, err
	}
	if err := conn.Read(func(fd uintptr) bool { return Ended(int(fd)) }); err != nil {
		return Exit{}, os.ErrClosed
	}
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		lost := Ended(s.keeper)
		e, ok, err := s.read(p)
		if ok || err != nil {
			return e, err
		}
		if lost {
			return Exit{}, ErrLost
		}
		time.Sleep(pause)
	}
}

// read reads the records that are new and answers with p's.
func (s *Statuses) read(p *Process) (Exit, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Exit{}, false, os.ErrClosed
	}
	var record [Size]byte
	for {
		if _, err := s.file.ReadAt(record[:], s.offset); err == io.EOF {
			break
		} else if err != nil {
			return Exit{}, false, err
		}
		s.offset += Size
		// si_code at 8, si_pid at 16, si_status at 24; a punched hole reads as zeros.
		field := func(at int) int { return int(int32(binary.LittleEndian.Uint32(record[at:]))) }
		e := Exit{PID: field(16), Code: field(8), Status: field(24)}
		if q := s.expected[e.PID]; q != nil {
			s.ended[q] = e
			delete(s.expected, e.PID)
		}
	}
	s.release()
	e, ok := s.ended[p]
	delete(s.ended, p)
	return e, ok, nil
}

// release gives back the room of records that were read. The last page stays, for a daemon that looks for init's.
func (s *Statuses) release() {
	const keep, step = 64 << 10, 64 << 10
	if end := s.offset - keep; end-s.freed >= step {
		if unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.freed, end-s.freed) == nil {
			s.freed = end
		}
	}
}

// Close ends the reading. Who waits for a process gets os.ErrClosed.
func (s *Statuses) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.file.Close()
	for _, p := range s.expected {
		p.pidfd.Close()
	}
}

// Ended tells whether the process of a pidfd has ended.
func Ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// WaitEnd waits until the process of a pidfd has ended.
func WaitEnd(ctx context.Context, fd int) error {
	for !Ended(fd) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 20); err != nil && err != unix.EINTR {
			return err
		}
		if ctx.Err() != nil && !Ended(fd) {
			return context.Cause(ctx)
		}
	}
	return nil
}
