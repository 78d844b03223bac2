package api

import (
	"context"
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect"

	"vps/api/vpsv1"
	"vps/api/wire"
)

// Console is an instance's console, seen by one of those who are attached. Reading gives the history, then what comes,
// and io.EOF when the instance is gone. Reading, writing and the rest may each be done from a goroutine of their own.
type Console struct {
	client  *Client
	stream  *connect.BidiStreamForClientSimple[vpsv1.ConsoleRequest, vpsv1.ConsoleResponse]
	cancel  context.CancelFunc
	sending sync.Mutex
	rest    []byte // received and not read yet
}

// Console attaches to an instance's console.
func (c *Client) Console(ctx context.Context, id string) (*Console, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.rpc.Console(ctx)
	if err != nil {
		cancel()
		return nil, c.fromWire(err)
	}
	endRequest(ctx, stream)
	t := &Console{client: c, stream: stream, cancel: cancel}
	err = t.send(&vpsv1.ConsoleRequest{Kind: &vpsv1.ConsoleRequest_Id{Id: id}})
	if err == nil || errors.Is(err, io.EOF) { // io.EOF: the reason is there to be received
		_, err = stream.Receive()
	}
	if err != nil {
		t.Close()
		return nil, c.fromWire(err)
	}
	return t, nil
}

func (t *Console) send(m *vpsv1.ConsoleRequest) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	return t.stream.Send(m)
}

func (t *Console) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		m, err := t.stream.Receive()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		} else if err != nil {
			return 0, t.client.fromWire(err)
		}
		t.rest = m.Output
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

func (t *Console) Write(p []byte) (int, error) {
	for written := 0; written < len(p); {
		n := min(len(p)-written, chunk)
		if err := t.send(&vpsv1.ConsoleRequest{Kind: &vpsv1.ConsoleRequest_Input{Input: p[written : written+n]}}); err != nil {
			return written, err
		}
		written += n
	}
	return len(p), nil
}

// Resize sets the size of the console, in characters.
func (t *Console) Resize(rows, cols uint16) error {
	return t.send(&vpsv1.ConsoleRequest{Kind: &vpsv1.ConsoleRequest_Window{Window: wire.EncodeWindow(rows, cols)}})
}

// Close detaches.
func (t *Console) Close() error {
	t.cancel()
	return t.stream.CloseResponse()
}
