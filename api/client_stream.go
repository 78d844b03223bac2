package api

import (
	"context"
	"io"
	"os"
	"runtime"

	"vps/api/vpsv1"
	"vps/api/wire"
	"vps/instance"
)

// Events calls f with every event from now on, until ctx ends or f fails. ready is called before the first one:
// from then on nothing is missed.
func (c *Client) Events(ctx context.Context, ready func(), f func(instance.Event) error) error {
	stream, err := c.rpc.Events(ctx, &vpsv1.Empty{})
	if err != nil {
		return c.fromWire(err)
	}
	defer stream.Close()
	for first := true; stream.Receive(); first = false {
		if first {
			ready()
		} else if err := f(wire.DecodeEvent(stream.Msg())); err != nil {
			return err
		}
	}
	return c.fromWire(stream.Err())
}

// Logs writes the history of an instance's console to w.
func (c *Client) Logs(ctx context.Context, id string, opt instance.LogOptions, w io.Writer) error {
	stream, err := c.rpc.Logs(ctx, &vpsv1.LogsRequest{Id: id, Follow: opt.Follow, Tail: opt.Tail})
	if err != nil {
		return c.fromWire(err)
	}
	defer stream.Close()
	for stream.Receive() {
		if _, err := w.Write(stream.Msg().GetData()); err != nil {
			return err
		}
	}
	return c.fromWire(stream.Err())
}

// Snapshot writes a snapshot of an instance to f. The work ends with ctx or with this process, and then the instance
// is as it was found. progress is called now and then.
func (c *Client) Snapshot(ctx context.Context, id string, f *os.File, opt instance.SnapshotOptions, progress func(instance.Progress)) (instance.SnapshotReport, error) {
	defer runtime.KeepAlive(f)
	var report instance.SnapshotReport
	stream, err := c.rpc.Snapshot(ctx, &vpsv1.SnapshotRequest{Id: id, Fd: int32(f.Fd()), Stop: opt.Stop, Suspend: opt.Suspend, Copy: opt.Copy})
	if err != nil {
		return report, c.fromWire(err)
	}
	defer stream.Close()
	complete := false
	for stream.Receive() {
		switch k := stream.Msg().Kind.(type) {
		case *vpsv1.SnapshotResponse_Progress:
			progress(wire.DecodeProgress(k.Progress))
		case *vpsv1.SnapshotResponse_Report:
			report, complete = wire.DecodeReport(k.Report), true
		}
	}
	if err := stream.Err(); err != nil || !complete {
		return report, c.fromWire(orUnexpectedEOF(err))
	}
	return report, nil
}

// Restore makes an instance of the snapshot that f gives.
func (c *Client) Restore(ctx context.Context, id string, f *os.File, opt instance.RestoreOptions, progress func(instance.Progress)) error {
	defer runtime.KeepAlive(f)
	stream, err := c.rpc.Restore(ctx, &vpsv1.RestoreRequest{
		Id: id, Fd: int32(f.Fd()), Resume: opt.Resume, Force: opt.Force, Config: wire.EncodeConfig(opt.Config),
		Lazy: opt.Lazy, Wait: opt.Wait, Unplug: opt.Unplug, Readdress: wire.EncodeAddresses(opt.Readdress),
	})
	if err != nil {
		return c.fromWire(err)
	}
	defer stream.Close()
	for stream.Receive() {
		progress(wire.DecodeProgress(stream.Msg()))
	}
	return c.fromWire(stream.Err())
}

func orUnexpectedEOF(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// endRequest ends what a client sends when ctx ends: while net/http waits for more to send, it does not see that.
func endRequest(ctx context.Context, stream interface{ CloseRequest() error }) {
	context.AfterFunc(ctx, func() {
		// It fails if the stream has ended already.
		_ = stream.CloseRequest()
	})
}
