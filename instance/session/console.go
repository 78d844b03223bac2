package session

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vps/console"
)

// Console is somebody at an instance's console. There may be several.
type Console struct {
	*console.Reader                          // the history, then what comes; io.EOF when the instance is gone
	Master          func() (*os.File, error) // the master side as it is now: after a reboot it is another one
}

// consolePatience is how long a write waits for an instance that does not read its console.
const consolePatience = 5 * time.Second

// Write types. What the instance does not take in time is lost, with an error.
func (c *Console) Write(p []byte) (int, error) {
	master, err := c.Master()
	if err != nil {
		return 0, err
	}
	conn, err := master.SyscallConn()
	if err != nil {
		return 0, err
	}
	n := 0
	var werr error
	err = conn.Control(func(fd uintptr) { n, werr = writeTerminal(int(fd), p) })
	if err == nil {
		err = werr
	}
	return n, err
}

// writeTerminal writes to a blocking master side without blocking for long. The kernel takes writes in pieces of the room that it
// has (drivers/tty/pty.c), so a piece that is small never blocks when there is any.
func writeTerminal(fd int, p []byte) (n int, err error) {
	const piece = 64
	for n < len(p) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		ready, err := unix.Poll(fds, int(consolePatience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if ready == 0 {
			return n, os.ErrDeadlineExceeded
		}
		m, err := unix.Write(fd, p[n:min(n+piece, len(p))])
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// Resize tells the console its size.
func (c *Console) Resize(rows, cols uint16) error {
	master, err := c.Master()
	if err != nil {
		return err
	}
	return resize(master, rows, cols)
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
