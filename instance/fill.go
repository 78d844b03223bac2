package instance

import (
	"context"
	"errors"
	"os"
	"time"

	"vps/cell"
	"vps/dump"
	"vps/pager/lazy"
)

// filling is memory of an instance that comes while it runs.
type filling struct {
	*cell.Fill
	over chan struct{} // closed at its end
}

// fillLater takes over what a restore leaves for later, and, without an error, the snapshot.
func (i *instance) fillLater(ctx context.Context, s *dump.SnapshotFile, memories []lazy.Memory) error {
	fill, err := i.cell.Fill(ctx, s, memories, i.pagesLost)
	if err != nil {
		return err
	}
	i.fill(fill)
	return nil
}

// refill goes on with what an earlier daemon had begun. An instance whose pages nobody can give must not run.
func (i *instance) refill(ctx context.Context, c *cell.Cell) {
	if i.rec.Fill == nil {
		return
	}
	fill, err := c.Refill(ctx, *i.rec.Fill, i.pagesLost)
	switch {
	case err != nil:
		i.notFilled(err)
	case fill == nil:
		i.rec.Fill = nil
	default:
		i.fill(fill)
	}
}

func (i *instance) fill(fill *cell.Fill) {
	f := &filling{fill, make(chan struct{})}
	i.mu.Lock()
	i.filling, i.rec.Fill = f, &fill.State
	i.mu.Unlock()
	i.host.tasks.Go(func() {
		defer close(f.over)
		began := time.Now()
		err := f.Run(context.Background())
		switch {
		case err == nil:
			i.filled(f, time.Since(began))
		case !errors.Is(err, os.ErrClosed):
			i.notFilled(err)
		}
	})
}

// filled notes that all memory is there.
func (i *instance) filled(f *filling, took time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.filling != f {
		return // it has ended meanwhile
	}
	i.filling, i.rec.Fill = nil, nil
	err := i.save()
	i.host.log.Info("all memory is there", "instance", i.id, "took", took, "error", err)
	i.host.events.Send(Event{Time: time.Now(), ID: i.id, State: i.rec.State, What: "filled"})
}

// pagesLost notes that pages cannot be read. They are withheld.
func (i *instance) pagesLost(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.rec.Lost == "" {
		i.rec.Lost = err.Error()
	}
	i.host.log.Error("memory is lost", "instance", i.id, "error", err, "record", i.save())
	i.host.events.Send(Event{Time: time.Now(), ID: i.id, State: i.rec.State, What: "memory lost"})
}

// notFilled ends an instance whose pages can be neither given nor withheld: they would be zeros.
func (i *instance) notFilled(err error) {
	i.pagesLost(err)
	if err := i.killAll(); err != nil {
		i.host.log.Error("kill", "instance", i.id, "error", err)
	}
}

// awaitFilled waits until all memory is there, or has come to nothing. progress, which may be nil, is told now and then.
func (i *instance) awaitFilled(ctx context.Context, progress func(Progress)) error {
	i.mu.Lock()
	f := i.filling
	i.mu.Unlock()
	if f == nil {
		return nil
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-f.over:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if progress != nil {
			missing, total := f.Progress()
			progress(Progress{Phase: "fill", Bytes: int64(total - missing), Total: int64(total)})
		}
	}
}
