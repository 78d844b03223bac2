package instance

import (
	"context"
	"errors"
	"fmt"
	"io"

	"vps/cell"
	"vps/instance/image"
	"vps/instance/registry"
	"vps/snapshot"
	"vps/suspend"
)

// Snapshot writes a snapshot of an instance to w, and leaves it as opt says, by default as it was found. If it fails, or
// ctx ends, the instance is as it was found; what has been written to w is then no snapshot.
func (h *Host) Snapshot(ctx context.Context, id string, w io.Writer, opt SnapshotOptions, progress func(Progress)) (SnapshotReport, error) {
	i, err := h.get(id)
	if err != nil {
		return SnapshotReport{}, fmt.Errorf("snapshot: %w", err)
	}
	done, err := i.begin("snapshot", Running, Suspended)
	if err != nil {
		return SnapshotReport{}, err
	}
	defer done()
	var report SnapshotReport
	if err = i.awaitFilled(ctx, progress); err == nil {
		report, err = i.snapshot(ctx, w, opt, progress)
	}
	if err != nil {
		err = fmt.Errorf("snapshot %s: %w", id, err)
	}
	return report, h.audit(ctx, "snapshot", id, err)
}

func (i *instance) snapshot(ctx context.Context, w io.Writer, opt SnapshotOptions, progress func(Progress)) (SnapshotReport, error) {
	before, err := i.hold(Snapshotting, "snapshot")
	if err != nil {
		return SnapshotReport{}, err
	}
	after := before
	if opt.Stop || opt.Suspend {
		after = Suspended
	}
	var report SnapshotReport
	src, err := i.source()
	if err == nil {
		if src.Copy, err = snapshot.ParseWay(opt.Copy); err != nil {
			err = fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	if err == nil {
		report, err = image.Take(ctx, w, src, after == Suspended, progress)
	}
	if err != nil {
		return SnapshotReport{}, errors.Join(err, i.back(before))
	}
	if after == Suspended && !opt.Stop {
		i.lendPatience()
	}
	if err := i.release(after, "snapshot"); err != nil {
		return SnapshotReport{}, err
	}
	if opt.Stop {
		if err := i.park(); err != nil {
			return report, err
		}
		err = i.end(ctx, registry.ReasonStop, func(*cell.Cell) error { return i.vanish() })
	}
	return report, err
}

// back brings an instance whose snapshot failed back to the state in which it was found.
func (i *instance) back(before State) error {
	var err error
	if before == Running {
		err = suspend.Resume(context.Background(), i.group, i.network())
	}
	return errors.Join(err, i.release(before, "undo"))
}

// source is what a snapshot is taken of.
func (i *instance) source() (*snapshot.Source, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cell == nil {
		return nil, &StateError{ID: i.id, Operation: "look at", State: i.rec.State} // it has just ended
	}
	return image.Source(&i.rec, i.cfg, i.group, i.port(), i.cell.Init.PID, i.host.insight, i.host.log)
}

// Check tells whether an instance can be snapshotted now, and what a snapshot would cost.
func (h *Host) Check(ctx context.Context, id string) (CheckReport, error) {
	i, err := h.get(id)
	if err != nil {
		return CheckReport{}, fmt.Errorf("check: %w", err)
	}
	if _, err := i.current("check", Running, Suspended); err != nil {
		return CheckReport{}, err
	}
	if err := i.awaitFilled(ctx, nil); err != nil {
		return CheckReport{}, err
	}
	src, err := i.source()
	if err != nil {
		return CheckReport{}, err
	}
	return image.Check(src)
}
