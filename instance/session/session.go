// Package session holds the outer ends of what runs in an instance at somebody's request: a command, the console.
package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/config"
	"vps/instance/blueprint"
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

// Spec is a command to run in an instance.
type Spec struct {
	Args       []string `json:"args"`
	Env        []string `json:"env,omitempty"` // added to PATH, HOME and TERM
	Dir        string   `json:"dir,omitempty"` // "" for the user's home, else /
	User       string   `json:"user,omitempty"`
	TTY        bool     `json:"tty,omitempty"`
	Rows, Cols uint16   `json:"-"`
	Stdin      bool     `json:"stdin,omitempty"`  // else /dev/null
	Detach     bool     `json:"detach,omitempty"` // stdin, stdout and stderr are /dev/null
}

// Prepare completes a command by the configuration of an instance and the users of its files, which its init, of that pid, sees.
func Prepare(cfg *config.Config, init int, spec Spec) (run cell.ExecSpec, err error) {
	u, err := inside.LookUp(init, spec.User)
	if err != nil {
		return run, err
	}
	run = cell.ExecSpec{
		Args: spec.Args, Dir: cmp.Or(spec.Dir, u.Home), UID: u.Uid, GID: u.Gid, Groups: u.Sgids,
		Rlimits: blueprint.Rlimits(cfg), TTY: spec.TTY, Rows: spec.Rows, Cols: spec.Cols,
	}
	defaults := []string{blueprint.Path, "HOME=" + u.Home}
	if spec.TTY {
		defaults = append(defaults, "TERM=xterm")
	}
	run.Env = blueprint.Environment(defaults, cfg.Env, spec.Env)
	run.Rights, err = blueprint.Rights(cfg)
	return run, err
}

// Start runs a command that is ready to run but for its standard streams: pipes to the session, the standard input only if stdin
// says so; or a terminal; or, if detached, nothing. owner is the host's id of its user. ctx bounds the start; the caller closes the
// session. An *ExecError says that it is the command that cannot be run.
func Start(ctx context.Context, c *cell.Cell, run cell.ExecSpec, owner int, stdin, detached bool) (*Session, error) {
	s := &Session{}
	var theirs []*os.File
	var err error
	if !run.TTY && !detached {
		theirs, err = s.pipes(stdin, owner)
		defer closeAll(theirs)
		copy(run.Stdio[:], theirs)
	}
	if err == nil {
		s.process, s.master, err = c.Exec(ctx, run)
	}
	if err != nil {
		s.Close()
		return nil, execError(run.Args[0], err)
	}
	s.PID = s.process.Inside
	if s.master != nil {
		s.files = append(s.files, s.master)
		s.Stdin, s.Stdout = s.master, terminal{s.master}
	}
	return s, nil
}

// execError names the command once, where an error is about it.
func execError(command string, err error) error {
	failed, ok := errors.AsType[*cell.ExecError](err)
	if !ok {
		return err
	}
	cause := failed.Err
	errno, known := errors.AsType[unix.Errno](cause)
	if known && (failed.Status == 127 || strings.HasPrefix(cause.Error(), command+": ")) {
		cause = errno
	}
	return &ExecError{Command: command, Status: failed.Status, Err: cause}
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
		return fmt.Errorf("resize: no terminal: %w", unix.ENOTTY)
	}
	return resize(s.master, rows, cols)
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
