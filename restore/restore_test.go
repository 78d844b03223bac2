package restore_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vps/account"
	"vps/cell"
	"vps/devfs"
	"vps/dump"
	"vps/dump/convert"
	"vps/internal/leak"
	"vps/internal/testimage"
	"vps/kmem"
	"vps/object"
	"vps/object/memory"
	"vps/object/mount"
	"vps/object/recordset"
	"vps/object/task"
	"vps/pager/lazy"
	"vps/priv"
	"vps/remote"
	"vps/restore"
	"vps/snapshot"
)

func TestMain(m *testing.M) { leak.Main(m) }

const firstUID = 1 << 21

// site is where a test has an instance, one cell at a time.
type site struct {
	t       testing.TB
	hosts   *account.Hierarchies
	home    string
	dir     string
	root    string
	devices []devfs.Node
	rights  cell.Rights
	group   *account.Group
	cell    *cell.Cell
	mounts  []string
	runs    int

	restarts *task.RestartReader
	kernel   *kmem.Reader
	flags    *memory.Flags
	facts    *task.FactReader

	copy     snapshot.Way
	frozen   []snapshot.Phase // of the last snapshot
	progress func(int, snapshot.Round)

	built  func()          // is called when a restore has its cell, and nothing in it yet
	limits []account.Limit // of the instance that the next restore builds
	lazy   bool            // restores leave memory for later
	file   *os.File        // of the snapshot that is restored
	fill   *cell.Fill      // what was left by the last one, nil if nothing
	filled chan error

	spoil       func()        // is called before lazy filling begins
	interrupt   time.Duration // after which it is begun anew; 0: never
	interrupted int
	wire        func(init int) error // gives an instance its interfaces
	unplugged   bool                 // it comes back without them
	force       bool                 // restores are forced
	warned      []string             // what the last one skipped
}

func newSite(t testing.TB, opts ...testimage.Option) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s := &site{t: t, home: fmt.Sprintf("restoretest%d", os.Getpid()), root: testimage.Build(t, opts...)}
	s.dir = filepath.Dir(s.root)
	var err error
	if s.hosts, err = account.Open(); err != nil {
		t.Fatal(err)
	}
	if s.devices, err = devfs.Default().Nodes(os.DirFS("/dev")); err != nil {
		t.Fatal(err)
	}
	set, err := priv.New(nil, nil, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	filter, err := set.Filter()
	if err != nil {
		t.Fatal(err)
	}
	s.rights = cell.Rights{Capabilities: set.Capabilities(), Filter: filter}
	if s.restarts, err = task.OpenRestartReader(); err != nil {
		t.Fatal(err)
	}
	if s.kernel, err = kmem.Open(); err != nil {
		t.Fatal(err)
	}
	if s.flags, err = memory.OpenFlags(s.kernel); err != nil {
		t.Fatal(err)
	}
	if s.facts, err = task.OpenFacts(s.kernel); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.end()
		s.restarts.Close()
		s.kernel.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.hosts.RemoveHome(ctx, s.home); err != nil {
			t.Error(err)
		}
	})
	return s
}

// build makes the cell of an instance, with an arena as a restore wants it.
func (s *site) build(spec cell.Spec) {
	s.t.Helper()
	if err := s.tryBuild(s.t.Context(), spec); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) tryBuild(ctx context.Context, spec cell.Spec) error {
	s.t.Helper()
	s.runs++
	spec.Run = filepath.Join(s.dir, "run"+strconv.Itoa(s.runs))
	if err := os.Mkdir(spec.Run, 0o711); err != nil {
		s.t.Fatal(err)
	}
	var err error
	if s.group, err = s.hosts.Create(s.home, "web", firstUID); err != nil {
		s.t.Fatal(err)
	}
	spec.ID, spec.Root, spec.Console = "web", s.root, true
	spec.Hostname = cmp.Or(spec.Hostname, "web")
	spec.UserNS = []remote.IDMap{{Inside: 0, Host: firstUID, Size: 65536}}
	spec.Group, spec.Devices = s.group, s.devices
	if s.cell, err = cell.Build(ctx, spec); err != nil {
		return errors.Join(err, s.group.Remove(context.WithoutCancel(ctx)))
	}
	if s.wire != nil {
		if err := s.wire(s.cell.Init.PID); err != nil {
			return err
		}
	}
	s.mounts, err = mount.Points(s.cell.Init.PID)
	return err
}

func (s *site) start(args ...string) {
	s.t.Helper()
	s.build(cell.Spec{})
	err := s.cell.ExecInit(s.t.Context(), cell.InitSpec{
		Args: args, Env: []string{"PATH=/sbin:/bin:/usr/bin", "HOME=/root"}, Rights: s.rights,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) end() {
	if s.cell == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.cell.Destroy(ctx); err != nil {
		s.t.Error(err)
	}
	if err := s.group.Remove(ctx); err != nil {
		s.t.Error(err)
	}
	s.cell = nil
}

func (s *site) source() *snapshot.Source {
	return &snapshot.Source{
		Group: s.group, Init: s.cell.Init.PID, Info: &dump.Instance{Name: "web"}, Standard: s.mounts, Filters: 1,
		Restarts: s.restarts, Kernel: s.kernel, Flags: s.flags, Facts: s.facts, Copy: s.copy, Progress: s.progress,
	}
}

// snapshot writes a snapshot of the running instance and returns its path.
func (s *site) snapshot() string {
	s.t.Helper()
	path := filepath.Join(s.dir, fmt.Sprintf("snapshot%d.vps", s.runs))
	header, err := snapshot.Header("web")
	if err != nil {
		s.t.Fatal(err)
	}
	w, err := dump.Create(path, header, dump.Plain)
	if err != nil {
		s.t.Fatal(err)
	}
	report, err := snapshot.Take(s.t.Context(), s.source(), w.Writer, true)
	if err != nil {
		w.Abort()
		s.t.Fatal(err)
	}
	s.frozen = report.Phases
	if err := w.Commit(); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// restore builds the instance of a snapshot and resumes it.
func (s *site) restore(path string) {
	s.t.Helper()
	file, err := dump.OpenFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	s.file = file.File()
	set, err := recordset.Load(file.Snapshot)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range set.Networks {
		if s.unplugged {
			convert.Unplug(n)
		}
	}
	plan, err := restore.Prepare(file.Snapshot, set)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.into(s.t.Context(), plan, set); err != nil {
		s.t.Fatal(err)
	}
	if err := s.group.Thaw(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// into restores by a plan, in a new cell.
func (s *site) into(ctx context.Context, plan *restore.Plan, set *object.Set) error {
	s.t.Helper()
	spec := cell.Spec{Slots: cell.DefaultSlots + plan.Slots, SlotSize: 256 << 10}
	var err error
	if spec.ArenaBase, err = plan.ArenaBase(uint64(spec.Slots*spec.SlotSize) + 4096); err != nil {
		return err
	}
	clocks := set.Instance.GetClocks()
	spec.Monotonic, spec.Boottime = time.Duration(clocks.GetMonotonic()), time.Duration(clocks.GetBoottime())
	spec.Hostname = set.Instance.GetHostname()
	if err := s.tryBuild(ctx, spec); err != nil {
		return err
	}
	if s.built != nil {
		s.built()
	}
	if err := s.group.SetLimits(s.limits); err != nil {
		return err
	}
	s.warned = nil
	first, _ := s.cell.FreeSlots()
	s.fill, s.filled = nil, nil
	var later func(context.Context, []lazy.Memory) error
	if s.lazy {
		later = s.fillLazily
	}
	return plan.Into(ctx, restore.Target{
		Lazy:  later,
		Arena: s.cell.Arena, Page: s.cell.Init.Page, PID: s.cell.Init.PID, PidFD: s.cell.Init.PidFD, FirstSlot: first,
		Socket: s.cell.Socket, SocketFD: s.cell.SocketFD, Group: s.group, Bear: s.cell.Bear, Console: s.cell.Console,
		Filter: s.rights.Filter, Bound: s.rights.Capabilities, Force: s.force, Warn: func(text string) { s.warned = append(s.warned, text) },
	})
}

// again takes a snapshot, ends the instance, and restores it.
func (s *site) again() {
	s.t.Helper()
	path := s.snapshot()
	s.end()
	s.restore(path)
}

// read waits until a file of the instance holds something that fits, and returns it.
func (s *site) read(name string, fits func(string) bool) string {
	s.t.Helper()
	var text string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		data, err := os.ReadFile(filepath.Join(s.root, name))
		if err == nil && fits(string(data)) {
			return string(data)
		}
		text = string(data)
	}
	s.t.Fatalf("%s: still %q", name, text)
	return ""
}

func lines(n int) func(string) bool {
	return func(text string) bool { return strings.Count(text, "\n") >= n }
}

// consecutive checks that the lines are the numbers from 1 on.
func consecutive(t testing.TB, text string) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
}

func TestShellThatCounts(t *testing.T) {
	s := newSite(t)
	s.start("/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >> /tmp/count; sleep 0.02; done")
	for range 3 {
		n := strings.Count(s.read("tmp/count", lines(1)), "\n")
		s.read("tmp/count", lines(n+5))
		s.again()
		n = strings.Count(s.read("tmp/count", lines(1)), "\n")
		consecutive(t, s.read("tmp/count", lines(n+10)))
	}
}
