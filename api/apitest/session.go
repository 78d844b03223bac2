package apitest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"vps/api"
	"vps/instance"
)

// Exec runs a command on the machine.
func (h *Host) Exec(_ context.Context, id string, spec instance.ExecSpec) (s *api.Session, err error) {
	err = h.use("exec", id, func(*instance.Info) error {
		cmd := exec.Command(spec.Args[0], spec.Args[1:]...)
		cmd.Env, cmd.Dir = append(os.Environ(), spec.Env...), spec.Dir
		s, err = start(cmd, spec)
		switch {
		case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
			return &instance.ExecError{Command: spec.Args[0], Status: 127, Err: syscall.ENOENT}
		case errors.Is(err, os.ErrPermission):
			return &instance.ExecError{Command: spec.Args[0], Status: 126, Err: syscall.EACCES}
		}
		return err
	}, instance.Running)
	return s, err
}

func start(cmd *exec.Cmd, spec instance.ExecSpec) (*api.Session, error) {
	c := &command{cmd: cmd}
	s := &api.Session{Control: c}
	var theirs []*os.File
	pipe := func() (r, w *os.File, err error) {
		r, w, err = os.Pipe()
		return r, w, err
	}
	switch {
	case spec.Detach:
	case spec.TTY:
		f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: spec.Rows, Cols: spec.Cols})
		if err != nil {
			return nil, err
		}
		c.terminal, c.ours, s.Stdin, s.Stdout, s.PID = f, []*os.File{f}, nopCloser{f}, f, cmd.Process.Pid
		return s, nil
	default:
		outR, outW, _ := pipe()
		errR, errW, _ := pipe()
		cmd.Stdout, cmd.Stderr, s.Stdout, s.Stderr = outW, errW, outR, errR
		c.ours, theirs = []*os.File{outR, errR}, []*os.File{outW, errW}
		if spec.Stdin {
			inR, inW, err := pipe()
			if err != nil {
				return nil, err
			}
			cmd.Stdin, s.Stdin = inR, inW
			c.ours, theirs = append(c.ours, inW), append(theirs, inR)
		}
	}
	err := cmd.Start()
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	s.PID = cmd.Process.Pid
	return s, nil
}

// nopCloser is a terminal's input, which ends with the terminal.
type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// command is a process of the machine's.
type command struct {
	cmd      *exec.Cmd
	terminal *os.File // nil: none
	ours     []*os.File
}

func (c *command) Resize(rows, cols uint16) error {
	if c.terminal == nil {
		return errors.New("no terminal")
	}
	raw, err := c.terminal.SyscallConn()
	if err != nil {
		return err
	}
	e := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(e, err)
}

func (c *command) Signal(signal int) error { return c.cmd.Process.Signal(syscall.Signal(signal)) }

func (c *command) Wait(ctx context.Context) (int, error) {
	defer context.AfterFunc(ctx, func() { c.cmd.Process.Kill() })()
	err := c.cmd.Wait()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return 0, err
	}
	if ws := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return c.cmd.ProcessState.ExitCode(), nil
}

func (c *command) Close() error {
	for _, f := range c.ours {
		f.Close()
	}
	return nil
}

// console is a terminal that shows what is typed.
type console struct {
	mu     sync.Mutex
	change sync.Cond
	shown  []byte
	over   bool
}

func newConsole() *console {
	c := &console{shown: []byte("login: ")}
	c.change.L = &c.mu
	return c
}

func (c *console) write(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown = append(c.shown, bytes.ReplaceAll(p, []byte("\r"), []byte("\r\n"))...)
	c.change.Broadcast()
}

func (c *console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.change.Broadcast()
}

func (c *console) reader(follow bool) *reader { return &reader{console: c, follow: follow} }

// reader is one of those who are attached.
type reader struct {
	console *console
	at      int
	follow  bool
	closed  bool
}

func (r *reader) Read(p []byte) (int, error) {
	c := r.console
	c.mu.Lock()
	defer c.mu.Unlock()
	for r.at == len(c.shown) {
		if r.closed {
			return 0, os.ErrClosed
		}
		if c.over || !r.follow {
			return 0, io.EOF
		}
		c.change.Wait()
	}
	n := copy(p, c.shown[r.at:])
	r.at += n
	return n, nil
}

func (r *reader) Write(p []byte) (int, error) {
	r.console.write(p)
	return len(p), nil
}

func (r *reader) Resize(rows, cols uint16) error { return nil }

func (r *reader) Close() error {
	r.console.mu.Lock()
	defer r.console.mu.Unlock()
	r.closed = true
	r.console.change.Broadcast()
	return nil
}

// Console attaches to an instance's console.
func (h *Host) Console(_ context.Context, id string) (t api.Terminal, err error) {
	err = h.use("console", id, func(*instance.Info) error {
		t = h.consoles[id].reader(true)
		return nil
	}, instance.Running)
	return t, err
}
