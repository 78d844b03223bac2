package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"connectrpc.com/connect"

	"vps/api/vpsv1"
	"vps/api/wire"
	"vps/instance"
)

// execution is one call of Exec: a stream and the command at its other end.
type execution struct {
	stream  *connect.BidiStream[vpsv1.ExecRequest, vpsv1.ExecResponse]
	sending sync.Mutex
	session *Session
	close   func() error // the session, once
	stdin   queue
	log     *slog.Logger
}

func (h handler) Exec(ctx context.Context, stream *connect.BidiStream[vpsv1.ExecRequest, vpsv1.ExecResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fmt.Errorf("exec: %w: the first message has to be start", instance.ErrInvalid)
	}
	session, err := h.Host.Exec(ctx, start.Id, wire.DecodeExec(start))
	if err != nil {
		return err
	}
	x := &execution{stream: stream, session: session, close: sync.OnceValue(session.Close), log: h.Log}
	defer x.close()
	if err := x.send(&vpsv1.ExecResponse{Kind: &vpsv1.ExecResponse_Pid{Pid: int32(session.PID)}}); err != nil || start.Detach {
		return err
	}
	status, err := x.run(ctx)
	if err != nil {
		return err
	}
	return x.send(&vpsv1.ExecResponse{Kind: &vpsv1.ExecResponse_Status{Status: int32(status)}})
}

// run carries data and signals until the command has ended or the client has gone.
func (x *execution) run(ctx context.Context) (status int, err error) {
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	x.stdin.init()
	go func() {
		if err := x.receive(); !errors.Is(err, io.EOF) {
			gone(err)
		}
	}()
	var copies, writer sync.WaitGroup
	var outputs []*output
	add := func(r io.Reader, wrap func([]byte) *vpsv1.ExecResponse) {
		o := &output{Reader: r}
		outputs = append(outputs, o)
		copies.Go(func() { x.copy(o, wrap, gone) })
	}
	add(x.session.Stdout, stdout)
	if x.session.Stderr != nil {
		add(x.session.Stderr, stderr)
	}
	if x.session.Stdin != nil {
		writer.Go(x.write)
	}
	status, err = x.session.Wait(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err == nil {
		for _, o := range outputs {
			o.end()
		}
	} else {
		x.late("close", x.close())
	}
	copies.Wait()
	x.stdin.close()
	x.late("close", x.close()) // ends a write, too
	writer.Wait()
	return status, err
}

func (x *execution) copy(o *output, wrap func([]byte) *vpsv1.ExecResponse, gone func(error)) {
	if err := pump(o, func(b []byte) error { return x.send(wrap(b)) }); err != nil {
		gone(err)
	}
}

func stdout(b []byte) *vpsv1.ExecResponse {
	return &vpsv1.ExecResponse{Kind: &vpsv1.ExecResponse_Stdout{Stdout: b}}
}

func stderr(b []byte) *vpsv1.ExecResponse {
	return &vpsv1.ExecResponse{Kind: &vpsv1.ExecResponse_Stderr{Stderr: b}}
}

func (x *execution) send(m *vpsv1.ExecResponse) error {
	x.sending.Lock()
	defer x.sending.Unlock()
	return x.stream.Send(m)
}

// receive handles what the client sends. It returns io.EOF when the client sends no more.
func (x *execution) receive() error {
	for {
		m, err := x.stream.Receive()
		if err != nil {
			return err
		}
		switch k := m.Kind.(type) {
		case *vpsv1.ExecRequest_Stdin:
			err = x.stdin.put(k.Stdin)
		case *vpsv1.ExecRequest_StdinEnd:
			x.stdin.close()
		case *vpsv1.ExecRequest_Window:
			x.late("resize", x.session.Resize(wire.DecodeWindow(k.Window)))
		case *vpsv1.ExecRequest_Signal:
			x.late("signal", x.session.Signal(int(k.Signal)))
		}
		if err != nil {
			return err
		}
	}
}

// late notes an error that most likely means that the command ended a moment ago.
func (x *execution) late(what string, err error) {
	if err != nil {
		x.log.Debug("exec", "failed", what, "err", err)
	}
}

// write gives the command its standard input, and tells the client what was taken.
func (x *execution) write() {
	defer x.session.Stdin.Close()
	b, taken := make([]byte, chunk), int64(0)
	for {
		n := x.stdin.take(b)
		if n == 0 {
			return
		}
		if _, err := x.session.Stdin.Write(b[:n]); err != nil {
			return // the command reads no more: the client waits for its end
		}
		taken += int64(n)
		if err := x.send(&vpsv1.ExecResponse{Kind: &vpsv1.ExecResponse_StdinTaken{StdinTaken: taken}}); err != nil {
			return
		}
	}
}

// queue holds what a client sent and a command has not taken yet, up to stdinWindow.
type queue struct {
	mu     sync.Mutex
	change sync.Cond
	data   []byte
	closed bool
}

func (q *queue) init() { q.change.L = &q.mu }

func (q *queue) put(b []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	if len(q.data)+len(b) > stdinWindow {
		return fmt.Errorf("exec: %w: more standard input than the window of %d bytes", instance.ErrInvalid, stdinWindow)
	}
	q.data = append(q.data, b...)
	q.change.Signal()
	return nil
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.change.Signal()
}

// take waits for data and moves it to b. It returns 0 when all is taken and the queue closed.
func (q *queue) take(b []byte) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.data) == 0 && !q.closed {
		q.change.Wait()
	}
	n := copy(b, q.data)
	q.data = append(q.data[:0], q.data[n:]...)
	return n
}
