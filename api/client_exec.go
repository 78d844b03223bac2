package api

import (
	"context"
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect"

	"vps/api/vpsv1"
	"vps/api/wire"
	"vps/instance"
)

// Command is a command that runs in an instance, seen by the client that runs it. Writing is its standard input.
// All methods but Copy may be called at once from several goroutines.
type Command struct {
	PID int // inside

	client *Client
	stream *connect.BidiStreamForClientSimple[vpsv1.ExecRequest, vpsv1.ExecResponse]
	cancel context.CancelFunc

	sending sync.Mutex

	mu     sync.Mutex
	change sync.Cond
	sent   int64 // bytes of standard input
	taken  int64 // of them by the command
	ended  bool
}

// Exec starts a command in an instance. An [*instance.ExecError] says that the command cannot be run.
// The caller has to close it, which lets go of it: the command goes on, or is hung up if it has a terminal.
func (c *Client) Exec(ctx context.Context, id string, spec instance.ExecSpec) (*Command, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.rpc.Exec(ctx)
	if err != nil {
		cancel()
		return nil, c.fromWire(err)
	}
	endRequest(ctx, stream)
	x := &Command{client: c, stream: stream, cancel: cancel}
	x.change.L = &x.mu
	err = x.send(&vpsv1.ExecRequest{Kind: &vpsv1.ExecRequest_Start{Start: wire.EncodeExec(id, spec)}})
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the reason is there to be received
		x.Close()
		return nil, c.fromWire(err)
	}
	first, err := stream.Receive()
	if err != nil {
		x.Close()
		return nil, c.fromWire(err)
	}
	x.PID = int(first.GetPid())
	return x, nil
}

// Close lets go of the command.
func (x *Command) Close() error {
	x.end()
	x.cancel()
	return x.stream.CloseResponse()
}

func (x *Command) send(m *vpsv1.ExecRequest) error {
	x.sending.Lock()
	defer x.sending.Unlock()
	return x.stream.Send(m)
}

// Write gives the command standard input. It waits while the command takes nothing, and fails with io.ErrClosedPipe
// when it has ended.
func (x *Command) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n := x.reserve(min(len(p)-written, chunk))
		if n == 0 {
			return written, io.ErrClosedPipe
		}
		if err := x.send(&vpsv1.ExecRequest{Kind: &vpsv1.ExecRequest_Stdin{Stdin: p[written : written+n]}}); err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// reserve waits until something may be sent, and returns how much of n that is; 0 if the command has ended.
func (x *Command) reserve(n int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	for !x.ended && x.sent-x.taken == stdinWindow {
		x.change.Wait()
	}
	if x.ended {
		return 0
	}
	n = min(n, int(stdinWindow-(x.sent-x.taken)))
	x.sent += int64(n)
	return n
}

func (x *Command) took(n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.taken = n
	x.change.Broadcast()
}

func (x *Command) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	x.change.Broadcast()
}

// CloseWrite is the end of the command's standard input.
func (x *Command) CloseWrite() error {
	return x.send(&vpsv1.ExecRequest{Kind: &vpsv1.ExecRequest_StdinEnd{StdinEnd: true}})
}

// Resize sets the size of the command's terminal, in characters.
func (x *Command) Resize(rows, cols uint16) error {
	return x.send(&vpsv1.ExecRequest{Kind: &vpsv1.ExecRequest_Window{Window: wire.EncodeWindow(rows, cols)}})
}

// Signal sends the command a signal.
func (x *Command) Signal(signal int) error {
	return x.send(&vpsv1.ExecRequest{Kind: &vpsv1.ExecRequest_Signal{Signal: int32(signal)}})
}

// Copy writes the command's output until it ends, and returns its exit status: 128 + signal if a signal ended it.
func (x *Command) Copy(stdout, stderr io.Writer) (status int, err error) {
	defer x.end()
	for {
		m, err := x.stream.Receive()
		if err != nil {
			return 0, x.client.fromWire(err)
		}
		switch k := m.Kind.(type) {
		case *vpsv1.ExecResponse_Stdout:
			_, err = stdout.Write(k.Stdout)
		case *vpsv1.ExecResponse_Stderr:
			_, err = stderr.Write(k.Stderr)
		case *vpsv1.ExecResponse_StdinTaken:
			x.took(k.StdinTaken)
		case *vpsv1.ExecResponse_Status:
			return int(k.Status), nil
		}
		if err != nil {
			return 0, err
		}
	}
}
