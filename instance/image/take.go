package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"vps/config"
	"vps/dump"
	"vps/instance/idrange"
	"vps/instance/registry"
	"vps/kmem"
	"vps/object"
	"vps/object/file"
	"vps/object/memory"
	"vps/object/task"
	"vps/snapshot"
	"vps/suspend"
)

// Insight opens, each once, what reads the insides of the kernel.
type Insight struct {
	restarts func() (*task.RestartReader, error)
	kernel   func() (*kmem.Reader, error)
	flags    func() (*memory.Flags, error)
	facts    func() (*task.FactReader, error)
}

// NewInsight returns an Insight that has opened nothing yet: that takes a while.
func NewInsight() Insight {
	kernel := sync.OnceValues(kmem.Open)
	return Insight{
		restarts: sync.OnceValues(task.OpenRestartReader),
		kernel:   kernel,
		flags: sync.OnceValues(func() (*memory.Flags, error) {
			reader, err := kernel()
			if err != nil {
				return nil, err
			}
			return memory.OpenFlags(reader)
		}),
		facts: sync.OnceValues(func() (*task.FactReader, error) {
			reader, err := kernel()
			if err != nil {
				return nil, err
			}
			return task.OpenFacts(reader)
		}),
	}
}

// Source returns what a snapshot is taken of: an instance by its record and configuration, its control group, and the pid of its
// init here. What this host gives no insight into is told to log.
func Source(rec *registry.Record, cfg *config.Config, group suspend.Group, net suspend.Network, init int, in Insight, log *slog.Logger) (*snapshot.Source, error) {
	pipes, err := ownPipes()
	if err != nil {
		return nil, err
	}
	ext := file.Externals{ConsoleTTY: -1, Pipes: pipes}
	if cfg.Console {
		ext.ConsoleTTY = 0
	}
	restarts, err := in.restarts()
	if err != nil {
		log.Warn("the rest of an interrupted sleep is not known", "error", err)
	}
	kernel, err := in.kernel()
	if err != nil {
		log.Warn("what only the kernel's memory tells is not known", "error", err)
	}
	flags, err := in.flags()
	if err != nil {
		log.Warn("mappings take longer to read", "error", err)
	}
	facts, err := in.facts()
	if err != nil {
		log.Warn("every thread is asked about itself", "error", err)
	}
	info := &dump.Instance{
		Name: rec.ID, Config: cfg.Text(), Ids: idrange.Size, Uuid: bytes.Clone(rec.UUID[:]), BootId: bytes.Clone(rec.BootID[:]),
		Restores: uint32(rec.Restores), Runs: uint32(rec.Age.Runs), Ran: int64(rec.Age.Ran),
	}
	if cfg.UserNS.Host {
		info.Ids = 0
	}
	return &snapshot.Source{
		Group: group, Network: net, Init: init, Info: info, Settings: rec.Impatient, Standard: rec.Mounts, Externals: ext,
		Restarts: restarts, Kernel: kernel, Flags: flags, Facts: facts, Filters: 1,
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

// Take writes a snapshot to w, and leaves the instance suspended or as it was found. If it fails the instance is as it was found in
// any case, and what has been written is no snapshot.
func Take(ctx context.Context, w io.Writer, src *snapshot.Source, suspended bool, progress func(Progress)) (Report, error) {
	begin := time.Now()
	counter := &counter{Writer: w, progress: progress}
	src.Progress = func(n int, r snapshot.Round) {
		counter.phase.Store(fmt.Sprintf("round %d copied %d MiB", n, r.Bytes>>20))
	}
	header, err := snapshot.Header(src.Info.GetName())
	if err != nil {
		return Report{}, err
	}
	out, err := dump.NewWriter(counter, header, dump.Plain)
	if err != nil {
		return Report{}, err
	}
	r, err := snapshot.Take(ctx, src, out, suspended)
	if err != nil {
		out.Abort()
		return Report{}, err
	}
	if err := out.Close(); err != nil {
		return Report{}, err
	}
	report := Report{
		Bytes: counter.n, Frozen: r.Frozen, Total: time.Since(begin),
		Records: out.Records(), Processes: r.Processes, Threads: r.Threads, Stopped: r.Stopped,
	}
	for _, round := range r.Rounds {
		report.Rounds = append(report.Rounds, Round(round))
	}
	for _, p := range r.Phases {
		report.Phases = append(report.Phases, Phase(p))
	}
	return report, nil
}

// Check tells whether a snapshot can be taken now, and what it would cost.
func Check(src *snapshot.Source) (CheckReport, error) {
	report := CheckReport{OK: true}
	for _, err := range snapshot.Probe(src) {
		report.OK = false
		b := Blocker{FD: -1, Text: err.Error()}
		if r, ok := errors.AsType[*object.Refusal](err); ok {
			b.PID, b.Comm, b.FD, b.Object = r.PID, r.Comm, r.FD, r.Object
		}
		report.Blockers = append(report.Blockers, b)
	}
	f, err := snapshot.Estimate(src)
	report.Bytes, report.Frozen, report.Copy = f.Bytes, f.Frozen, f.Copy
	return report, err
}

// counter counts what is written, and tells.
type counter struct {
	io.Writer
	n        int64
	told     int64
	phase    atomic.Value // string: what has happened so far
	progress func(Progress)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	const step = 4 << 20
	if c.progress != nil && c.n-c.told >= step {
		c.told = c.n
		phase, _ := c.phase.Load().(string)
		c.progress(Progress{Phase: cmp.Or(phase, "snapshot"), Bytes: c.n})
	}
	return n, err
}
