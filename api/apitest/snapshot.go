package apitest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"vps/instance"
)

// SnapshotSize is the length of a snapshot of a [Host], in bytes. A pipe does not hold it.
const SnapshotSize = 1 << 20

// Report is what a snapshot of a [Host] is said to have cost.
func Report() instance.SnapshotReport {
	return instance.SnapshotReport{
		Bytes: SnapshotSize, Frozen: 9 * time.Millisecond, Total: 30 * time.Millisecond, Records: 42, Processes: 3, Threads: 5,
		Rounds: []instance.Round{{Bytes: SnapshotSize, Took: 4 * time.Millisecond}}, Stopped: time.Millisecond,
		Phases: []instance.Phase{{Name: "stop", Took: time.Millisecond}, {Name: "pages", Took: 8 * time.Millisecond}},
	}
}

const magic = "snapshot of "

// Hold makes snapshots stand still in the middle until release is called or their client has gone.
func (h *Host) Hold() (release func()) {
	gate := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = gate
	return func() { close(gate) }
}

// Snapshot writes SnapshotSize bytes.
func (h *Host) Snapshot(ctx context.Context, id string, w io.Writer, opt instance.SnapshotOptions, progress func(instance.Progress)) (instance.SnapshotReport, error) {
	var before instance.State
	var gate chan struct{}
	err := h.use("snapshot", id, func(i *instance.Info) error {
		before, gate = i.State, h.gate
		h.become(i, instance.Snapshotting, "snapshot", nil)
		return nil
	}, instance.Running, instance.Suspended)
	if err != nil {
		return instance.SnapshotReport{}, err
	}
	err = h.write(ctx, id, w, gate, progress)
	after := before
	if err == nil && opt.Suspend {
		after = instance.Suspended
	}
	var exit *instance.ExitStatus
	if err == nil && opt.Stop {
		after, exit = instance.Dead, &instance.ExitStatus{Code: 137, Signal: "SIGKILL", Reason: "stop", Time: Time}
	}
	e := h.use("snapshot", id, func(i *instance.Info) error { h.become(i, after, "snapshot", exit); return nil })
	if err == nil {
		err = e
	}
	return Report(), err
}

func (h *Host) write(ctx context.Context, id string, w io.Writer, gate chan struct{}, progress func(instance.Progress)) error {
	head := magic + id + "\n"
	if _, err := io.WriteString(w, head); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	progress(instance.Progress{Phase: "memory", Bytes: int64(len(head)), Total: SnapshotSize})
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if _, err := io.WriteString(w, strings.Repeat(".", SnapshotSize-len(head))); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	progress(instance.Progress{Phase: "trailer", Bytes: SnapshotSize, Total: SnapshotSize})
	return ctx.Err()
}

// Restore reads what Snapshot wrote.
func (h *Host) Restore(_ context.Context, id string, r io.Reader, opt instance.RestoreOptions, progress func(instance.Progress)) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if len(data) != SnapshotSize || !strings.HasPrefix(string(data), magic) {
		return fmt.Errorf("%w: not a snapshot", instance.ErrInvalid)
	}
	progress(instance.Progress{Phase: "memory", Bytes: SnapshotSize, Total: SnapshotSize})
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.instances[id]; i != nil && i.State != instance.Dead {
		return fmt.Errorf("%w: %s", instance.ErrExists, id)
	}
	state := instance.Suspended
	if opt.Resume {
		state = instance.Running
	}
	h.instances[id] = &instance.Info{ID: id, Created: Time, Restores: 1}
	h.consoles[id] = newConsole()
	h.become(h.instances[id], state, "restore", nil)
	return nil
}
