package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/config"
	"vps/dump"
)

// ticking is the line of an init that counts in /tmp/count.
var ticking = initLine("i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.01; done")

// count is how far a ticking instance has come; the root is looked at from outside.
func (h *testHost) count() int {
	h.t.Helper()
	for range 100 {
		text, err := os.ReadFile(filepath.Join(h.root, "tmp/count"))
		if n, cerr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && cerr == nil {
			return n
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatal("the instance does not count")
	return 0
}

// ticks checks that an instance runs.
func (h *testHost) ticks() {
	h.t.Helper()
	before := h.count()
	for end := time.Now().Add(10 * time.Second); h.count() <= before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("the instance stands still at %d", before)
		}
	}
}

// stands checks that an instance is frozen, and held by no tracer.
func (h *testHost) stands(id string) {
	h.t.Helper()
	i, err := h.get(id)
	if err != nil {
		h.t.Fatal(err)
	}
	if frozen, err := i.group.Frozen(); err != nil || !frozen {
		h.t.Errorf("%s is not frozen: %v", id, err)
	}
	pids, err := i.group.Procs()
	if err != nil || len(pids) == 0 {
		h.t.Fatal(pids, err)
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(status), "\nTracerPid:\t0\n") {
			h.t.Errorf("process %d has a tracer, or is gone: %v", pid, err)
		}
	}
	before := h.count()
	time.Sleep(50 * time.Millisecond)
	if after := h.count(); after != before {
		h.t.Errorf("%s went on from %d to %d", id, before, after)
	}
}

// nothingLeft checks that an instance which is not there has left nothing.
func (h *testHost) nothingLeft(id string) {
	h.t.Helper()
	if state := h.state(id); state != "" {
		h.t.Errorf("%s is %s", id, state)
	}
	if _, err := os.Stat(h.home.Instance(id)); !errors.Is(err, os.ErrNotExist) {
		h.t.Errorf("run directory of %s: %v", id, err)
	}
	if names, err := h.tree.List(h.key); err != nil || slices.Contains(names, id) {
		h.t.Errorf("control groups: %v, %v", names, err)
	}
	if left, err := filepath.Glob(filepath.Join(h.home.State, "*.tmp")); err != nil || len(left) > 0 {
		h.t.Errorf("temporary files: %v, %v", left, err)
	}
}

// snapshotted returns a snapshot of an instance.
func (h *testHost) snapshotted(id string, opt SnapshotOptions) []byte {
	h.t.Helper()
	var buf bytes.Buffer
	if _, err := h.Snapshot(h.t.Context(), id, &buf, opt, nil); err != nil {
		h.t.Fatal(err)
	}
	return buf.Bytes()
}

// save writes a snapshot into a file, and returns it open and its path.
func (h *testHost) save(snapshot []byte) (*os.File, string) {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "web.vps")
	if err := os.WriteFile(path, snapshot, 0o600); err != nil {
		h.t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { f.Close() })
	return f, path
}

// stuckWriter takes some bytes, says so, and then no more until ctx ends.
type stuckWriter struct {
	ctx   context.Context
	left  int
	stuck func()
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	if len(p) <= w.left {
		w.left -= len(p)
		return len(p), nil
	}
	w.stuck()
	<-w.ctx.Done()
	return w.left, w.ctx.Err()
}

// stuckReader is the same for reading.
type stuckReader struct {
	stuckWriter
	from io.Reader
}

func (r *stuckReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		r.stuck()
		<-r.ctx.Done()
		return 0, r.ctx.Err()
	}
	n, err := r.from.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// fault is what a daemon of [testHost.killed] does to be killed in the middle: VERB@BYTES.
func fault(ctx context.Context, h *Host, verb, id, path string) {
	verb, bytes, _ := strings.Cut(verb, "@")
	n, err := strconv.Atoi(bytes)
	fail(err)
	stuck := stuckWriter{ctx: ctx, left: n, stuck: func() { fmt.Println("done") }}
	switch verb {
	case "snapshot":
		_, err = h.Snapshot(ctx, id, &stuck, SnapshotOptions{}, nil)
	case "pipe":
		var f *os.File
		f, err = os.Open(path)
		fail(err)
		err = h.Restore(ctx, id, &stuckReader{stuck, f}, RestoreOptions{}, nil)
	}
	fail(fmt.Errorf("%s did not come to byte %d: %w", verb, n, err))
}

func TestDaemonKilledInSnapshot(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	h.ticks()
	for _, before := range []State{Running, Suspended} {
		if before == Suspended {
			if err := h.Suspend(t.Context(), "web"); err != nil {
				t.Fatal(err)
			}
		}
		for _, at := range []int{0, 500, 5000, 20_000, 35_000, 50_000} { // a snapshot of a shell alone has more
			n := h.count()
			h.killed(fmt.Sprintf("snapshot@%d web -", at))
			if before == Suspended && at >= 5000 {
				// It is so even while no daemon runs.
				if now := h.count(); now != n {
					t.Errorf("at byte %d: it went on from %d to %d", at, n, now)
				}
			}
			h.open()
			if state := h.state("web"); state != before {
				t.Fatalf("at byte %d: it is %s, not %s", at, state, before)
			}
			if before == Running {
				h.ticks()
			} else {
				h.stands("web")
			}
		}
	}
	if err := h.Resume(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	h.ticks()
}

func TestDaemonKilledInRestore(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	h.ticks()
	snapshot := h.snapshotted("web", SnapshotOptions{Stop: true})
	if err := h.Remove(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	_, path := h.save(snapshot)
	for _, at := range []int{0, 1, 5000, len(snapshot) - 1} {
		h.killed(fmt.Sprintf("pipe@%d web %s", at, path))
		h.open()
		h.nothingLeft("web")
	}
	// From a file it is fast: it is killed at moments all over it.
	for after := time.Duration(0); after < 100*time.Millisecond; after += 4 * time.Millisecond {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		h.killedAfter("web", path, after)
		h.open()
		switch h.state("web") {
		case "":
			h.nothingLeft("web")
		case Suspended:
			h.stands("web")
			if err := h.Abort(t.Context(), "web"); err != nil {
				t.Fatal(err)
			}
			if err := h.Remove(t.Context(), "web"); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("killed after %v: it is %s", after, h.state("web"))
		}
	}
}

// killedAfter lets a daemon of its own begin a restore, and kills it.
func (h *testHost) killedAfter(id, path string, after time.Duration) {
	h.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "VPS_TEST_DAEMON="+h.dir, "VPS_TEST_RESTORE="+id+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "begun\n" {
		h.t.Errorf("restore: %s%v", buf[:n], err)
	}
	time.Sleep(after)
	if err := cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	cmd.Wait()
}

// restoreOnly is a daemon that only restores what the environment names.
func restoreOnly(ctx context.Context, h *Host, what string) {
	id, path, _ := strings.Cut(what, "=")
	f, err := os.Open(path)
	fail(err)
	fmt.Println("begun")
	if err := h.Restore(ctx, id, f, RestoreOptions{}, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	time.Sleep(time.Hour)
}

func TestClientGone(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	h.ticks()
	snapshot := h.snapshotted("web", SnapshotOptions{})
	for _, before := range []State{Running, Suspended} {
		if before == Suspended {
			if err := h.Suspend(t.Context(), "web"); err != nil {
				t.Fatal(err)
			}
		}
		for _, at := range []int{0, 5000, 20_000, 50_000} {
			for _, opt := range []SnapshotOptions{{}, {Stop: true}, {Suspend: true}} {
				ctx, cancel := context.WithCancel(t.Context())
				_, err := h.Snapshot(ctx, "web", &stuckWriter{ctx: ctx, left: at, stuck: cancel}, opt, nil)
				cancel()
				if !errors.Is(err, context.Canceled) {
					t.Errorf("at byte %d: %v", at, err)
				}
				if state := h.state("web"); state != before {
					t.Fatalf("at byte %d, %+v: it is %s, not %s", at, opt, state, before)
				}
			}
		}
		if before == Running {
			h.ticks()
		} else {
			h.stands("web")
		}
	}
	for _, at := range []int{0, 5000, len(snapshot) - 1} {
		ctx, cancel := context.WithCancel(t.Context())
		err := h.Restore(ctx, "copy", &stuckReader{stuckWriter{ctx: ctx, left: at, stuck: cancel}, bytes.NewReader(snapshot)}, RestoreOptions{}, nil)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("restore, at byte %d: %v", at, err)
		}
		h.nothingLeft("copy")
	}
	// While it is built.
	f, _ := h.save(snapshot)
	for after := time.Duration(0); after < 60*time.Millisecond; after += 5 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		err := h.Restore(ctx, "copy", f, RestoreOptions{}, nil)
		cancel()
		if err != nil {
			h.nothingLeft("copy")
			continue
		}
		if err := h.Abort(t.Context(), "copy"); err != nil {
			t.Fatal(err)
		}
		if err := h.Remove(t.Context(), "copy"); err != nil {
			t.Fatal(err)
		}
	}
}

// failingWriter is a disk that gets full.
type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

func TestDiskFull(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	for _, left := range []int{0, 100, 5000, 50_000} {
		if _, err := h.Snapshot(t.Context(), "web", &failingWriter{left}, SnapshotOptions{Stop: true}, nil); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%d bytes: %v", left, err)
		}
		if state := h.state("web"); state != Running {
			t.Fatalf("%d bytes: it is %s", left, state)
		}
		h.ticks()
	}
}

// A client that stands still keeps nobody frozen: what is left to be written waits in memory.
func TestClientStandsStill(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	for _, way := range []string{"auto", "rounds", "frozen"} {
		for _, at := range []int{0, 5000, 20_000, 50_000} {
			ctx, cancel := context.WithCancel(t.Context())
			begun, ended := make(chan bool), make(chan error)
			go func() {
				w := &stuckWriter{ctx: ctx, left: at, stuck: func() { close(begun) }}
				_, err := h.Snapshot(ctx, "web", w, SnapshotOptions{Copy: way}, nil)
				ended <- err
			}()
			<-begun
			h.ticks()
			h.ticks()
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if state := h.state("web"); state != Running {
				t.Fatalf("%s, at byte %d: it is %s", way, at, state)
			}
			h.ticks()
		}
	}
	if _, err := h.Snapshot(t.Context(), "web", io.Discard, SnapshotOptions{Copy: "twice"}, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestTwoAtOnce(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := make(chan bool)
	ended := make(chan error)
	go func() {
		_, err := h.Snapshot(ctx, "web", &stuckWriter{ctx: ctx, left: 5000, stuck: func() { close(begun) }}, SnapshotOptions{}, nil)
		ended <- err
	}()
	<-begun
	_, second := h.Snapshot(t.Context(), "web", io.Discard, SnapshotOptions{}, nil)
	for verb, err := range map[string]error{
		"snapshot": second, "suspend": h.Suspend(t.Context(), "web"), "stop": h.Stop(t.Context(), "web", 0),
		"rm": h.Remove(t.Context(), "web"), "start": h.Start(t.Context(), "web", nil),
		"restore": h.Restore(t.Context(), "web", strings.NewReader(""), RestoreOptions{}, nil),
	} {
		if !errors.Is(err, ErrBusy) || err.Error() != verb+" web: snapshot is under way" {
			t.Errorf("%s: %v", verb, err)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.ticks()
}

// Of restores to one name at once, one wins.
func TestTwoRestores(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	h.ticks()
	_, path := h.save(h.snapshotted("web", SnapshotOptions{Stop: true}))
	errs := make(chan error)
	for range 2 {
		go func() {
			f, err := os.Open(path)
			if err == nil {
				defer f.Close()
				err = h.Restore(t.Context(), "web", f, RestoreOptions{Resume: true}, nil)
			}
			errs <- err
		}()
	}
	a, b := <-errs, <-errs
	if (a == nil) == (b == nil) {
		t.Fatalf("%v, and %v", a, b)
	}
	if lost := errors.Join(a, b); !errors.Is(lost, ErrBusy) && !errors.Is(lost, ErrState) {
		t.Error(lost)
	}
	h.ticks()
}

func TestSuspended(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	h.ticks()
	if err := h.Suspend(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	h.stands("web")
	snapshot := h.snapshotted("web", SnapshotOptions{})
	if state := h.state("web"); state != Suspended {
		t.Fatalf("after the snapshot it is %s", state)
	}
	h.stands("web")

	// Nobody is needed for it.
	h.killed()
	at := h.count()
	h.open()
	if state := h.state("web"); state != Suspended || h.count() != at {
		t.Fatalf("after its daemon's death it is %s, and counts from %d to %d", state, at, h.count())
	}
	h.stands("web")
	if err := h.Resume(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	h.ticks()
	if err := h.Stop(t.Context(), "web", 0); err != nil {
		t.Fatal(err)
	}

	// It goes on from where it stood then.
	if err := h.Restore(t.Context(), "web", bytes.NewReader(snapshot), RestoreOptions{Force: true}, nil); err != nil {
		t.Fatal(err)
	}
	h.stands("web")
	if err := h.Resume(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if n := h.count(); n == at+1 || n == at+2 || n == at+3 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("it is at %d, and was at %d", n, at)
		}
	}
	for _, test := range []struct {
		opt   SnapshotOptions
		state State
	}{{SnapshotOptions{}, Running}, {SnapshotOptions{Suspend: true}, Suspended}, {SnapshotOptions{Suspend: true}, Suspended}, {SnapshotOptions{Stop: true}, Dead}} {
		h.snapshotted("web", test.opt)
		if state := h.state("web"); state != test.state {
			t.Fatalf("after %+v it is %s", test.opt, state)
		}
		if test.state == Suspended {
			h.stands("web")
		}
	}
	if err := h.Restore(t.Context(), "web", bytes.NewReader(snapshot), RestoreOptions{Resume: true, Force: true}, nil); err != nil {
		t.Fatal(err)
	}
	h.ticks()
	if err := h.Abort(t.Context(), "web"); !errors.Is(err, ErrState) {
		t.Errorf("abort of a running instance: %v", err)
	}
	if err := h.Suspend(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	at = h.count()
	if err := h.Abort(t.Context(), "web"); err != nil || h.state("web") != Dead {
		t.Errorf("abort: %v, %s", err, h.state("web"))
	}
	if n := h.count(); n != at {
		t.Errorf("it ran from %d to %d before it died", at, n)
	}
}

// rewritten is a snapshot with another header.
func rewritten(t *testing.T, snapshot []byte, change func(*dump.Header)) []byte {
	t.Helper()
	r, err := dump.NewReader(bytes.NewReader(snapshot))
	if err != nil {
		t.Fatal(err)
	}
	header := r.Header()
	change(header)
	var buf bytes.Buffer
	w, err := dump.NewWriter(&buf, header, dump.Plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(1, &dump.Instance{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRestoreRefusals(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	h.ticks()
	snapshot := h.snapshotted("web", SnapshotOptions{})
	major := bytes.Clone(snapshot)
	major[8]++ // of the version, after the magic: docs/format.md
	flipped := bytes.Clone(snapshot)
	flipped[len(flipped)/2] ^= 4
	here, nowhere := h.config(), h.config("FSROOT=/missing")
	for _, test := range []struct {
		name     string
		id       string
		snapshot []byte
		config   *config.Config
		class    error
		want     string
	}{
		{"architecture", "copy", rewritten(t, snapshot, func(h *dump.Header) { h.Arch = "aarch64" }), nil, dump.ErrArch, `"aarch64"`},
		{"processor", "copy", rewritten(t, snapshot, func(h *dump.Header) { h.CpuFeatures = []string{"avx1024"} }), nil, dump.ErrCPU, `"avx1024"`},
		{"pages", "copy", rewritten(t, snapshot, func(h *dump.Header) { h.PageSize = 65536 }), nil, dump.ErrArch, "65536"},
		{"version", "copy", major, nil, nil, "format 2.0 cannot be read"},
		{"empty", "copy", nil, nil, dump.ErrTruncated, "offset 0"},
		{"truncated", "copy", snapshot[:len(snapshot)*2/3], nil, dump.ErrTruncated, "offset"},
		{"flipped", "copy", flipped, here, nil, "offset"},
		{"no snapshot", "copy", bytes.Repeat([]byte("vps"), 1000), nil, nil, "offset 0"},
		{"bad name", "no/name", snapshot, nil, ErrInvalid, `restore no/name: invalid: invalid instance name "no/name"`},
		{"name in use", "web", snapshot, nil, ErrState, "restore web: it is running"},
		{"no root", "copy", snapshot, nowhere, nil, "FSROOT: stat /missing: no such file or directory"},
	} {
		f, _ := h.save(test.snapshot)
		for how, r := range map[string]io.Reader{"file": f, "pipe": bytes.NewReader(test.snapshot)} {
			err := h.Restore(t.Context(), test.id, r, RestoreOptions{Config: test.config}, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) || test.class != nil && !errors.Is(err, test.class) {
				t.Errorf("%s, from a %s: %v", test.name, how, err)
			}
			if err != nil && strings.Count(err.Error(), "restore ") != 1 {
				t.Errorf("%s: said twice: %v", test.name, err)
			}
			if test.id == "copy" {
				h.nothingLeft("copy")
			}
		}
	}
	for verb, err := range map[string]error{
		"snapshot": func() error {
			_, err := h.Snapshot(t.Context(), "none", io.Discard, SnapshotOptions{}, nil)
			return err
		}(),
		"suspend": h.Suspend(t.Context(), "none"), "resume": h.Resume(t.Context(), "none"), "abort": h.Abort(t.Context(), "none"),
	} {
		if !errors.Is(err, ErrNotFound) || !strings.HasPrefix(err.Error(), verb+": ") || !strings.Contains(err.Error(), "none") {
			t.Errorf("%s of nothing: %v", verb, err)
		}
	}
	h.ticks()
}

// What is mapped must be what it was: a program would fail much later, and far from the cause.
func TestChangedFile(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	h.ticks()
	snapshot := h.snapshotted("web", SnapshotOptions{Stop: true})
	busybox := filepath.Join(h.root, "bin/busybox")
	if err := os.Chtimes(busybox, time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	err := h.Restore(t.Context(), "web", bytes.NewReader(snapshot), RestoreOptions{}, nil)
	if err == nil || !strings.Contains(err.Error(), "bin/busybox changed since the snapshot") {
		t.Errorf("changed time: %v", err)
	}
	if state := h.state("web"); state != Dead {
		t.Errorf("it is %s", state)
	}
	if err := h.Restore(t.Context(), "web", bytes.NewReader(snapshot), RestoreOptions{Resume: true, Force: true}, nil); err != nil {
		t.Fatalf("forced: %v", err)
	}
	h.ticks()
	snapshot = h.snapshotted("web", SnapshotOptions{Stop: true})
	if err := os.Remove(busybox); err != nil {
		t.Fatal(err)
	}
	for _, force := range []bool{false, true} {
		err = h.Restore(t.Context(), "web", bytes.NewReader(snapshot), RestoreOptions{Force: force}, nil)
		if err == nil || !strings.Contains(err.Error(), "bin/busybox: no such file or directory") {
			t.Errorf("missing file, force %v: %v", force, err)
		}
	}
}
