package api

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// chunk is the most that goes into one message, in bytes.
const chunk = 32 << 10

// stdinWindow is what a client may send to a command's standard input before the command has taken it, in bytes.
const stdinWindow = 256 << 10

// pump sends what r gives until it ends.
func pump(r io.Reader, send func([]byte) error) error {
	b := make([]byte, chunk)
	for {
		n, err := r.Read(b)
		if n > 0 {
			if err := send(b[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrClosed), errors.Is(err, io.ErrClosedPipe),
			errors.Is(err, unix.EIO): // a pty without the other side
			return nil
		default:
			return err
		}
	}
}

// lastOutput is how long a command that has ended may be silent before its output is taken to have ended too.
const lastOutput = 50 * time.Millisecond

// output is what a command writes. After the command's end it ends with the last byte that is there, even if
// a process that the command left behind holds the other end open.
type output struct {
	io.Reader
	ended atomic.Bool
}

func (o *output) Read(p []byte) (int, error) {
	if o.ended.Load() {
		o.limit()
	}
	n, err := o.Reader.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF
	}
	return n, err
}

// end tells that the command has ended.
func (o *output) end() {
	o.ended.Store(true)
	o.limit()
}

func (o *output) limit() {
	if r, ok := o.Reader.(interface{ SetReadDeadline(time.Time) error }); ok {
		// An error means that this kind of file has no deadlines and gives its end by itself.
		_ = r.SetReadDeadline(time.Now().Add(lastOutput))
	}
}
