package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"vps/instance/home"
)

// Files in a host's run directory.
const (
	socketName = "vpsd.sock"
	lockName   = "vpsd.lock"  // held by the daemon as long as it lives
	startName  = "vpsd.start" // held by the client that starts a daemon
	logName    = "vpsd.log"   // standard error of a daemon that a client started
)

// ErrRunning tells that another daemon serves the host.
var ErrRunning = errors.New("another vpsd is running")

// at calls f with a short path of a name in dir: sun_path of unix(7) holds 108 bytes, a directory's path may be longer.
func at(dir, name string, f func(path string) error) error {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(d)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d, name))
}

// dialSocket connects to the daemon of the host whose run directory is run.
func dialSocket(ctx context.Context, run string) (conn net.Conn, err error) {
	err = at(run, socketName, func(path string) error {
		conn, err = new(net.Dialer).DialContext(ctx, "unix", path)
		return err
	})
	return conn, err
}

// Listen makes the run directory and its management socket, which only its owner may use, and holds the host's lock.
// It fails with [ErrRunning] while another daemon holds that. Closing the listener gives both back.
func Listen(run string) (net.Listener, error) {
	if err := os.MkdirAll(run, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(run, lockName), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("serve %s: %w", run, ErrRunning)
	} else if err != nil {
		return nil, fmt.Errorf("serve %s: %w", run, err)
	}
	l, err := bind(run)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("make management socket in %s: %w", run, err)
	}
	return &listener{UnixListener: l, path: filepath.Join(run, socketName), lock: lock}, nil
}

func bind(run string) (*net.UnixListener, error) {
	// What is there is of a daemon that died: the lock is ours.
	if err := os.Remove(filepath.Join(run, socketName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var l net.Listener
	err := at(run, socketName, func(path string) (err error) {
		l, err = (&net.ListenConfig{Control: ownerOnly}).Listen(context.Background(), "unix", path)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its path was a descriptor's
	return l.(*net.UnixListener), nil
}

// ownerOnly sets the mode that bind(2) gives the socket's file, so that there is no moment with another one.
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var chmod error
	if err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return chmod
}

// lockFile opens path, makes it if need be, and locks it, flock(2).
func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); err == nil {
			return f, nil
		} else if err != unix.EINTR {
			f.Close()
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
	}
}

// logPath is where a daemon that a client started writes its log.
func logPath(at home.Home) string { return filepath.Join(at.Run, logName) }
