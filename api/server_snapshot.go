package api

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"vps/api/vpsv1"
	"vps/api/wire"
	"vps/instance"
)

func (h handler) Snapshot(ctx context.Context, r *vpsv1.SnapshotRequest, out *connect.ServerStream[vpsv1.SnapshotResponse]) error {
	f, release, err := clientFile(ctx, int(r.Fd), os.O_WRONLY)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", r.Id, err)
	}
	defer release()
	tell, end := report(func(p instance.Progress) error {
		return out.Send(&vpsv1.SnapshotResponse{Kind: &vpsv1.SnapshotResponse_Progress{Progress: wire.EncodeProgress(p)}})
	})
	cost, err := h.Host.Snapshot(ctx, r.Id, f, instance.SnapshotOptions{Stop: r.Stop, Suspend: r.Suspend, Copy: r.Copy}, tell)
	end()
	if err != nil {
		return err
	}
	return out.Send(&vpsv1.SnapshotResponse{Kind: &vpsv1.SnapshotResponse_Report{Report: wire.EncodeReport(cost)}})
}

func (h handler) Restore(ctx context.Context, r *vpsv1.RestoreRequest, out *connect.ServerStream[vpsv1.Progress]) error {
	f, release, err := clientFile(ctx, int(r.Fd), os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("restore %s: %w", r.Id, err)
	}
	defer release()
	cfg, err := wire.DecodeConfig(r.Config)
	if err != nil {
		return err
	}
	readdress, err := wire.DecodeAddresses(r.Readdress)
	if err != nil {
		return fmt.Errorf("restore %s: %w", r.Id, err)
	}
	tell, end := report(func(p instance.Progress) error { return out.Send(wire.EncodeProgress(p)) })
	defer end()
	return h.Host.Restore(ctx, r.Id, f, instance.RestoreOptions{
		Resume: r.Resume, Force: r.Force, Lazy: r.Lazy, Wait: r.Wait, Config: cfg, Unplug: r.Unplug, Readdress: readdress,
	}, tell)
}

// clientFile takes a descriptor of the client's. Reading and writing it end when ctx does.
func clientFile(ctx context.Context, fd, access int) (f *os.File, release func(), err error) {
	p := peerOf(ctx)
	if p == nil {
		return nil, nil, fmt.Errorf("descriptor %d: %w: the client is on another machine", fd, instance.ErrInvalid)
	}
	n, err := p.descriptor(fd)
	if err != nil {
		return nil, nil, err
	}
	if f, err = pollable(n, access); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		// Of what is not pollable nothing blocks for long.
		_ = f.SetDeadline(time.Unix(1, 0))
	})
	return f, func() { stop(); f.Close() }, nil
}

// pollable makes a file of a descriptor. A pipe it opens once more, without blocking, so that a peer that stands still
// cannot keep a call from ending; the client's own description stays as it is.
func pollable(fd, access int) (*os.File, error) {
	const name = "client's file"
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return os.NewFile(uintptr(fd), name), err
	}
	defer unix.Close(fd)
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), access|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the client's pipe: %w", err)
	}
	return os.NewFile(uintptr(again), name), nil
}

// report sends progress as fast as the client takes it, the newest only, and every warning. tell never waits: whoever calls it
// may hold an instance still. After end nothing is sent any more.
func report(send func(instance.Progress) error) (tell func(instance.Progress), end func()) {
	var mu sync.Mutex
	var waiting []instance.Progress
	more := make(chan struct{}, 1)
	done := make(chan struct{})
	var sender sync.WaitGroup
	flush := func() error {
		mu.Lock()
		list := waiting
		waiting = nil
		mu.Unlock()
		for _, p := range list {
			if err := send(p); err != nil {
				return err
			}
		}
		return nil
	}
	sender.Go(func() {
		for ended := false; !ended; {
			select {
			case <-more:
			case <-done:
				ended = true
			}
			if flush() != nil {
				return // the client has gone, and so will the call
			}
		}
	})
	tell = func(p instance.Progress) {
		mu.Lock()
		waiting = append(slices.DeleteFunc(waiting, func(p instance.Progress) bool { return p.Warning == "" }), p)
		mu.Unlock()
		select {
		case more <- struct{}{}:
		default: // the sender is yet to look
		}
	}
	return tell, func() { close(done); sender.Wait() }
}
