package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"vps/instance/home"
)

// Daemon is the name under which the program of a client, run again, is the daemon.
const Daemon = "vpsd"

// ReadyFD is the descriptor on which a daemon that a client started says that it listens, by [Ready], or why it ends,
// by writing that. Nothing at all means that it died.
const ReadyFD = 3

const readyWord = "ready\n"

// StartError says that no daemon runs and none could be started.
type StartError struct {
	Log  string // where the daemon may have said more
	Text string
}

func (e *StartError) Error() string {
	return fmt.Sprintf("start vpsd: %s (its log: %s)", e.Text, e.Log)
}

// Unwrap returns ErrUnavailable.
func (e *StartError) Unwrap() error { return ErrUnavailable }

// errNotRunning is what a passive client gets if no daemon runs.
var errNotRunning = fmt.Errorf("%w: it does not run", ErrUnavailable)

// Ready tells the client that started this daemon that it listens.
func Ready(f *os.File) error {
	_, err := f.WriteString(readyWord)
	return errors.Join(err, f.Close())
}

// reach gives a connection to the host's daemon, which it starts if there is none.
func (c *Client) reach(ctx context.Context) (net.Conn, error) {
	at := c.home
	conn, err := dialSocket(ctx, at.Run)
	if !absent(err) {
		return conn, err
	}
	if c.Passive {
		return nil, errNotRunning
	}
	if err := os.MkdirAll(at.Run, 0o700); err != nil {
		return nil, &StartError{logPath(at), err.Error()}
	}
	lock, err := lockFile(filepath.Join(at.Run, startName), unix.LOCK_EX)
	if err != nil {
		return nil, &StartError{logPath(at), err.Error()}
	}
	defer lock.Close()
	// Whoever had the lock before may have started one.
	if conn, err = dialSocket(ctx, at.Run); !absent(err) {
		return conn, err
	}
	if err := launch(ctx, at); err != nil {
		return nil, &StartError{logPath(at), err.Error()}
	}
	return dialSocket(ctx, at.Run)
}

// absent reports whether an error of dialSocket means that no daemon listens.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// launch starts a daemon that has nothing of this process: session, directory, environment or descriptors. It returns when that
// listens.
func launch(ctx context.Context, at home.Home) error {
	log, err := os.OpenFile(logPath(at), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	// Whatever else this process was given open is not for the daemon. Its own descriptors are closed on execve already.
	if err := unix.CloseRange(ReadyFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		w.Close()
		return fmt.Errorf("close descriptors on exec: %w", err)
	}
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{Daemon, "--launched"},
		Env:         []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "VPS_HOME=" + at.Dir},
		Dir:         "/",
		Stdout:      log,
		Stderr:      log,
		ExtraFiles:  []*os.File{w}, // the first one is ReadyFD
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	defer cmd.Process.Release()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	said, err := io.ReadAll(io.LimitReader(r, 64<<10))
	switch {
	case bytes.Equal(said, []byte(readyWord)):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("wait for it: %w", err)
	case len(said) == 0:
		return errors.New("it ended at once")
	}
	return errors.New(strings.TrimSpace(string(said)))
}
