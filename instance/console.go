package instance

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/console"
)

// Logs reads what the instance's console has printed. The caller closes the reader; so does the end of ctx.
func (h *Host) Logs(ctx context.Context, id string, opt LogOptions) (io.ReadCloser, error) {
	i, err := h.get(id)
	if err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	r, err := i.history(opt)
	if err != nil {
		return nil, fmt.Errorf("logs %s: %w", id, err)
	}
	context.AfterFunc(ctx, func() { r.Close() })
	return r, nil
}

func (i *instance) history(opt LogOptions) (*console.Reader, error) {
	i.mu.Lock()
	dead := i.dead
	i.mu.Unlock()
	o := console.Options{Tail: opt.Tail}
	if opt.Follow {
		o.Until = dead
	}
	return console.Open(filepath.Join(i.host.runDir(i.id), cell.HistoryFile), o)
}

// ConsoleSession is somebody at an instance's console. There may be several.
type ConsoleSession struct {
	*console.Reader // the history, then what comes; io.EOF when the instance is gone
	instance        *instance
}

// Console attaches to the console of an instance, whatever its state. The caller closes the session; so does the end of ctx.
func (h *Host) Console(ctx context.Context, id string) (*ConsoleSession, error) {
	c, err := h.console(ctx, id)
	h.audit(ctx, "console", id, err)
	return c, err
}

func (h *Host) console(ctx context.Context, id string) (*ConsoleSession, error) {
	i, err := h.get(id)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c := &ConsoleSession{instance: i}
	if _, err := c.master(); err != nil {
		return nil, err
	}
	if c.Reader, err = i.history(LogOptions{Follow: true}); err != nil {
		return nil, fmt.Errorf("console %s: %w", id, err)
	}
	context.AfterFunc(ctx, func() { c.Close() })
	return c, nil
}

// master is that of the console as it is now: after a reboot it is another one.
func (c *ConsoleSession) master() (*os.File, error) {
	cl, err := c.instance.current("console", Created, Running, Suspended, Snapshotting)
	if err != nil {
		return nil, err
	}
	if cl.Console == nil {
		return nil, fmt.Errorf("console %s: its configuration says CONSOLE = no: %w", c.instance.id, ErrInvalid)
	}
	return cl.Console, nil
}

// consolePatience is how long a write waits for an instance that does not read its console.
const consolePatience = 5 * time.Second

// Write types. What the instance does not take in time is lost, with an error.
func (c *ConsoleSession) Write(p []byte) (int, error) {
	master, err := c.master()
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
func (c *ConsoleSession) Resize(rows, cols uint16) error {
	master, err := c.master()
	if err != nil {
		return err
	}
	return resize(master, rows, cols)
}
