package cell

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/cell/reaper"
	"vps/dump"
	"vps/pager/lazy"
)

// LogFile is the log of missing pages in a cell's run directory.
const LogFile = "pages"

// FillState is what a new daemon must know to go on with a [Fill]: numbers of descriptors in the keeper.
type FillState struct {
	Snapshot int `json:"snapshot"`
	Log      int `json:"log"`
}

// Fill is the filling of an instance's memory while it runs.
type Fill struct {
	*lazy.Filler
	State FillState

	cell     *Cell
	snapshot *dump.SnapshotFile
}

// Fill begins to fill memories, whose userfaultfds are descriptors of ours that stay the caller's. The snapshot becomes the Fill's, if
// there is no error. The keeper holds all of them open from now on. warn is told of pages that cannot be read.
func (c *Cell) Fill(ctx context.Context, s *dump.SnapshotFile, memories []lazy.Memory, warn func(error)) (*Fill, error) {
	leave, err := c.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	path := filepath.Join(c.run, LogFile)
	log, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fds := []int{int(s.File().Fd()), int(log.Fd())}
	for _, m := range memories {
		fds = append(fds, m.Fault)
	}
	held, err := c.hold(ctx, fds)
	if err != nil {
		return nil, err
	}
	for i := range memories {
		memories[i].Fault = held[2+i]
	}
	if err := lazy.WriteLog(log, memories); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c.fill(s, FillState{Snapshot: held[0], Log: held[1]}, warn)
}

// hold gives descriptors to the keeper.
func (c *Cell) hold(ctx context.Context, fds []int) ([]int, error) {
	c.births.Lock()
	defer c.births.Unlock()
	return c.give(ctx, c.Keeper, fds)
}

// Refill goes on with a filling that an earlier daemon has begun. If that was complete, it returns nil.
func (c *Cell) Refill(ctx context.Context, st FillState, warn func(error)) (*Fill, error) {
	if _, err := os.Lstat(filepath.Join(c.run, LogFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, c.release(ctx, st)
	}
	file, err := c.Keeper.Take(st.Snapshot)
	if err != nil {
		return nil, err
	}
	s, err := dump.OpenFrom(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	f, err := c.fill(s, st, warn)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return f, nil
}

func (c *Cell) fill(s *dump.SnapshotFile, st FillState, warn func(error)) (*Fill, error) {
	log, err := c.Keeper.Take(st.Log)
	if err != nil {
		return nil, err
	}
	keeper := lazy.Keeper{Page: c.Arena.Page(slotFault), PidFD: c.Keeper.PidFD, Log: st.Log}
	filler, err := lazy.Open(s.Snapshot, log, keeper, warn)
	if err != nil {
		return nil, err
	}
	return &Fill{Filler: filler, State: st, cell: c, snapshot: s}, nil
}

// Run fills as [lazy.Filler.Run] does, until the cell is closed: os.ErrClosed. When all is filled, the keeper holds nothing of it any more.
func (f *Fill) Run(ctx context.Context) error {
	defer f.snapshot.Close()
	leave, err := f.cell.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(f.cell.ctx, func() { cancel(os.ErrClosed) })()
	if err := f.Filler.Run(ctx); f.cell.ctx.Err() != nil {
		return os.ErrClosed // the keeper may be gone, too
	} else if err != nil {
		return err
	}
	// Without the log it is complete, whatever becomes of us.
	if err := os.Remove(filepath.Join(f.cell.run, LogFile)); err != nil {
		return err
	}
	err = f.cell.release(context.WithoutCancel(ctx), f.State)
	if reaper.Ended(f.cell.Keeper.PidFD) {
		return nil // it holds nothing either
	}
	return err
}

// release lets the keeper forget what it holds for a filling that is complete.
func (c *Cell) release(ctx context.Context, st FillState) error {
	c.births.Lock()
	defer c.births.Unlock()
	dir := filepath.Join("/proc", strconv.Itoa(c.Keeper.PID), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	s := c.Keeper.Page.Script(ctx, c.Keeper.PidFD)
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && (link == "anon_inode:[userfaultfd]" || fd == st.Snapshot || fd == st.Log) {
			s.Call("close "+link, unix.SYS_CLOSE, fd)
		}
	}
	return s.Run()
}
