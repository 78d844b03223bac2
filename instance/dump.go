package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"vps/cell"
	"vps/dump"
	"vps/instance/idrange"
	"vps/object"
	"vps/object/file"
	"vps/object/task"
	"vps/snapshot"
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
	begin := time.Now()
	before, err := i.hold(Snapshotting, "snapshot")
	if err != nil {
		return SnapshotReport{}, err
	}
	after := before
	if opt.Stop || opt.Suspend {
		after = Suspended
	}
	counter := &counter{Writer: w, progress: progress}
	report, records, err := i.take(ctx, counter, after == Suspended)
	if err != nil {
		return SnapshotReport{}, errors.Join(err, i.back(before))
	}
	if err := i.release(after, "snapshot"); err != nil {
		return SnapshotReport{}, err
	}
	if opt.Stop {
		err = i.end(ctx, reasonStop, func(*cell.Cell) error { return i.killAll() })
	}
	var phases []Phase
	for _, p := range report.Phases {
		phases = append(phases, Phase(p))
	}
	return SnapshotReport{
		Bytes: counter.n, Frozen: report.Frozen, Total: time.Since(begin),
		Records: records, Processes: report.Processes, Threads: report.Threads, Phases: phases,
	}, err
}

// back brings an instance whose snapshot failed back to the state in which it was found.
func (i *instance) back(before State) error {
	var err error
	if before == Running {
		err = i.group.Thaw(context.Background())
	}
	return errors.Join(err, i.release(before, "undo"))
}

// take writes the snapshot, and tells how many records that has.
func (i *instance) take(ctx context.Context, w io.Writer, suspended bool) (report snapshot.Report, records int, err error) {
	src, err := i.source()
	if err != nil {
		return report, 0, err
	}
	header, err := snapshot.Header(i.id)
	if err != nil {
		return report, 0, err
	}
	out, err := dump.NewWriter(w, header, dump.Plain)
	if err != nil {
		return report, 0, err
	}
	if report, err = snapshot.Take(ctx, src, out, suspended); err != nil {
		out.Abort()
		return report, 0, err
	}
	err = out.Close()
	return report, out.Records(), err
}

// source is what a snapshot is taken of.
func (i *instance) source() (*snapshot.Source, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	pipes, err := ownPipes()
	if err != nil {
		return nil, err
	}
	ext := file.Externals{ConsoleTTY: -1, Pipes: pipes}
	if i.cfg.Console {
		ext.ConsoleTTY = 0
	}
	restarts, err := i.host.restarts()
	if err != nil {
		i.host.log.Warn("the rest of an interrupted sleep is not known", "error", err)
	}
	kernel, err := i.host.kernel()
	if err != nil {
		i.host.log.Warn("what only the kernel's memory tells is not known", "error", err)
	}
	info := &dump.Instance{
		Name: i.id, Config: i.cfg.Text(), Ids: idrange.Size, Uuid: i.rec.UUID[:], BootId: i.rec.BootID[:],
		Restores: uint32(i.rec.Restores), Runs: uint32(i.rec.Age.Runs), Ran: int64(i.rec.Age.Ran),
	}
	if i.cfg.UserNS.Host {
		info.Ids = 0
	}
	return &snapshot.Source{
		Group: i.group, Init: i.cell.Init.PID, Info: info, Standard: i.rec.Mounts, Externals: ext, Restarts: restarts, Kernel: kernel, Filters: 1,
	}, nil
}

// ownPipes returns the inode numbers of the pipes that we hold an end of: those of exec sessions.
func ownPipes() (map[uint64]bool, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	pipes := make(map[uint64]bool)
	for _, e := range entries {
		var inode uint64
		link, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			continue // that of the directory itself, closed by now
		}
		if _, err := fmt.Sscanf(link, "pipe:[%d]", &inode); err == nil {
			pipes[inode] = true
		}
	}
	return pipes, nil
}

// restarts opens the reader of interrupted calls, once: that takes a while.
func (h *Host) restarts() (*task.RestartReader, error) {
	h.restartsOnce.Do(func() { h.restartReader, h.restartsErr = task.OpenRestartReader() })
	return h.restartReader, h.restartsErr
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
	report := CheckReport{OK: true}
	for _, err := range snapshot.Probe(src) {
		report.OK = false
		b := Blocker{FD: -1, Text: err.Error()}
		if r, ok := errors.AsType[*object.Refusal](err); ok {
			b.PID, b.Comm, b.FD, b.Object = r.PID, r.Comm, r.FD, r.Object
		}
		report.Blockers = append(report.Blockers, b)
	}
	report.Bytes, report.Frozen, err = snapshot.Estimate(src)
	return report, err
}

// counter counts what is written, and tells.
type counter struct {
	io.Writer
	n        int64
	told     int64
	progress func(Progress)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	const step = 4 << 20
	if c.progress != nil && c.n-c.told >= step {
		c.told = c.n
		c.progress(Progress{Phase: "snapshot", Bytes: c.n})
	}
	return n, err
}
