package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/instance/inside"
)

// Session is a command that runs in an instance.
type Session struct {
	Stdin  io.WriteCloser // nil unless asked for; closing it is end of file
	Stdout io.Reader      // nil if detached
	Stderr io.Reader      // nil with a terminal, or if detached
	PID    int            // inside

	process *cell.Process
	master  *os.File // the terminal's, nil without
	files   []*os.File
}

// ExecError is a command that could not be run. Status is 126 if it was found, else 127.
type ExecError struct {
	Command string
	Status  int
	Err     error
}

func (e *ExecError) Error() string { return e.Command + ": " + e.Err.Error() }
func (e *ExecError) Unwrap() error { return e.Err }

// Exec runs a command in a running instance. ctx bounds its start; the caller closes the session. An *ExecError says that it is
// the command that cannot be run.
func (h *Host) Exec(ctx context.Context, id string, spec ExecSpec) (*Session, error) {
	s, err := h.exec(ctx, id, spec)
	h.audit(ctx, "exec", id, err)
	return s, err
}

func (h *Host) exec(ctx context.Context, id string, spec ExecSpec) (*Session, error) {
	i, err := h.get(id)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return nil, fmt.Errorf("exec %s: no command: %w", id, ErrInvalid)
	}
	c, err := i.current("exec", Running)
	if err != nil {
		return nil, err
	}
	run, firstUID, err := i.execSpec(c, spec)
	if err != nil {
		return nil, fmt.Errorf("exec %s: %w", id, err)
	}
	s := &Session{}
	var theirs []*os.File
	if !spec.TTY && !spec.Detach {
		theirs, err = s.pipes(spec.Stdin, firstUID+run.UID)
		defer closeAll(theirs)
		copy(run.Stdio[:], theirs)
	}
	if err == nil {
		s.process, s.master, err = c.Exec(ctx, run)
	}
	if err != nil {
		s.Close()
		var failed *cell.ExecError
		if errors.As(err, &failed) {
			cause := failed.Err
			errno, known := errors.AsType[unix.Errno](cause)
			if known && (failed.Status == 127 || strings.HasPrefix(cause.Error(), spec.Args[0]+": ")) {
				cause = errno // the command is named anyway
			}
			return nil, &ExecError{Command: spec.Args[0], Status: failed.Status, Err: cause}
		}
		return nil, fmt.Errorf("exec %s: %w", id, err)
	}
	s.PID = s.process.Inside
	if s.master != nil {
		s.files = append(s.files, s.master)
		s.Stdin, s.Stdout = s.master, terminal{s.master}
	}
	return s, nil
}

// execSpec completes a command by the instance's users and configuration. firstUID is the host's id of its root.
func (i *instance) execSpec(c *cell.Cell, spec ExecSpec) (run cell.ExecSpec, firstUID int, err error) {
	i.mu.Lock()
	cfg, firstUID := i.cfg, i.rec.FirstUID
	i.mu.Unlock()
	u, err := inside.LookUp(c.Init.PID, spec.User)
	if err != nil {
		return run, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	run = cell.ExecSpec{
		Args: spec.Args, Dir: orDefault(spec.Dir, u.Home), UID: u.Uid, GID: u.Gid, Groups: u.Sgids,
		Rlimits: rlimits(cfg), TTY: spec.TTY, Rows: spec.Rows, Cols: spec.Cols,
	}
	defaults := []string{defaultPath, "HOME=" + u.Home}
	if spec.TTY {
		defaults = append(defaults, "TERM=xterm")
	}
	run.Env = environment(defaults, cfg.Env, spec.Env)
	run.Rights, err = rights(cfg)
	return run, firstUID, err
}

// pipes makes the standard streams, owned by the user with a host's uid, so that the command may open /dev/stdout. The
// ends that it returns, nil for /dev/null, are the command's.
func (s *Session) pipes(stdin bool, uid int) (theirs []*os.File, err error) {
	theirs = make([]*os.File, 3)
	for n := range theirs {
		if n == 0 && !stdin {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, err
		}
		if n == 0 {
			theirs[n], s.Stdin = r, w
			s.files = append(s.files, w)
		} else {
			theirs[n] = w
			s.files = append(s.files, r)
		}
		if err := theirs[n].Chown(uid, uid); err != nil {
			return theirs, err
		}
		switch n {
		case 1:
			s.Stdout = r
		case 2:
			s.Stderr = r
		}
	}
	return theirs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// terminal reads a terminal's master side, which answers EIO at the end, tty_ioctl(4).
type terminal struct{ master *os.File }

func (t terminal) Read(p []byte) (int, error) {
	n, err := t.master.Read(p)
	if errors.Is(err, unix.EIO) {
		err = io.EOF
	}
	return n, err
}

// Resize tells the terminal its size.
func (s *Session) Resize(rows, cols uint16) error {
	if s.master == nil {
		return fmt.Errorf("resize: no terminal: %w", ErrInvalid)
	}
	return resize(s.master, rows, cols)
}

func resize(master *os.File, rows, cols uint16) error {
	conn, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := conn.Control(func(fd uintptr) {
		serr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}); err != nil {
		return err
	}
	return serr
}

// Signal sends a signal to the command.
func (s *Session) Signal(sig int) error { return s.process.Signal(unix.Signal(sig)) }

// Wait waits for the end of the command and returns its exit status, 128 + n if signal n ended it.
func (s *Session) Wait(ctx context.Context) (int, error) {
	e, err := s.process.Wait(ctx)
	if err != nil {
		return 0, err
	}
	return e.ExitCode(), nil
}

// Close lets go of the command, which goes on; with a terminal it is hung up.
func (s *Session) Close() error {
	closeAll(s.files)
	return nil
}
