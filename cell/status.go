package cell

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

// statusSize is that of siginfo_t, asm-generic/siginfo.h.
const statusSize = 128

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

// statuses reads what the keeper writes.
type statuses struct {
	mu       sync.Mutex
	file     *os.File
	keeper   int // pidfd
	offset   int64
	freed    int64
	expected map[int]*Process
	ended    map[*Process]Exit
	closed   bool
}

func openStatuses(path string, keeper int) (*statuses, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &statuses{file: file, keeper: keeper, expected: make(map[int]*Process), ended: make(map[*Process]Exit)}, nil
}

// expect lets birth make a child of the keeper and begins to wait for its end. No status is read meanwhile, so that none is missed.
func (s *statuses) expect(birth func() (pid int, err error)) (*Process, error) {
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
	return s.watch(pid, fd), nil
}

// watch waits for the end of a process with a non-blocking pidfd, which becomes its own.
func (s *statuses) watch(pid, fd int) *Process {
	p := &Process{PID: pid, pidfd: os.NewFile(uintptr(fd), fmt.Sprintf("process %d", pid)), done: make(chan struct{})}
	s.expected[pid] = p
	go func() {
		p.exit, p.err = s.await(p)
		p.pidfd.Close()
		close(p.done)
	}()
	return p
}

// await waits for the end of a process and for its record, which the keeper writes a moment later.
func (s *statuses) await(p *Process) (Exit, error) {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return Exit{}, err
	}
	if err := conn.Read(func(fd uintptr) bool { return readable(int(fd)) }); err != nil {
		return Exit{}, os.ErrClosed
	}
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		lost := readable(s.keeper)
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
func (s *statuses) read(p *Process) (Exit, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Exit{}, false, os.ErrClosed
	}
	var record [statusSize]byte
	for {
		if _, err := s.file.ReadAt(record[:], s.offset); err == io.EOF {
			break
		} else if err != nil {
			return Exit{}, false, err
		}
		s.offset += statusSize
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
func (s *statuses) release() {
	const keep, step = 64 << 10, 64 << 10
	if end := s.offset - keep; end-s.freed >= step {
		if unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.freed, end-s.freed) == nil {
			s.freed = end
		}
	}
}

func (s *statuses) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.file.Close()
	for _, p := range s.expected {
		p.pidfd.Close()
	}
}

// readable tells whether a descriptor is readable: for a pidfd, whether its process has ended.
func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// waitReadable waits until the process of a pidfd has ended.
func waitReadable(ctx context.Context, fd int) error {
	for !readable(fd) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 20); err != nil && err != unix.EINTR {
			return err
		}
		if ctx.Err() != nil && !readable(fd) {
			return context.Cause(ctx)
		}
	}
	return nil
}
