package instance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vps/internal/testimage"
)

// largeProgram fills memory, waits for a file, and looks at its memory for as long as it may, in another order each time. It forks too.
const largeProgram = `
import os, random, sys, time
size = int(sys.argv[1]) << 20
memory = bytearray(size)
page = 4096
for i in range(0, size, page):
    memory[i:i+8] = i.to_bytes(8, "little")
def look(order):
    for i in order:
        if memory[i:i+8] != i.to_bytes(8, "little"):
            return "page %x is wrong" % i
    return "good"
order = list(range(0, size, page))
random.Random(1).shuffle(order)
open("/ready", "w").close()
while not os.path.exists("/go"):
    time.sleep(0.001)
child = os.fork()
if not child:
    open("/child.new", "w").write(look(order))
    os.rename("/child.new", "/child")
    os._exit(0)
open("/parent.new", "w").write(look(reversed(order)))
os.rename("/parent.new", "/parent")
os.waitpid(child, 0)
while True:
    time.sleep(1)
`

// large is a host with a stopped instance, web, whose snapshot has so many MiB of memory, in the file at path.
func large(t *testing.T, mib int) (h *testHost, path string) {
	h = newHost(t, testimage.Python(), testimage.File("/large.py", largeProgram, 0o644))
	h.start("web", fmt.Sprintf("INIT='/usr/bin/python3 /large.py %d'", mib))
	h.until("memory", func() bool { _, err := os.Stat(filepath.Join(h.root, "ready")); return err == nil })
	path = filepath.Join(t.TempDir(), "web.vps")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := h.Snapshot(t.Context(), "web", f, SnapshotOptions{Stop: true}, nil); err != nil {
		t.Fatal(err)
	}
	return h, path
}

// lazily restores web and lets its program go on.
func (h *testHost) lazily(path string, opt RestoreOptions, progress func(Progress)) {
	h.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile(filepath.Join(h.root, "go"), nil, 0o644); err != nil {
		h.t.Fatal(err)
	}
	opt.Lazy, opt.Resume = true, true
	if err := h.Restore(h.t.Context(), "web", f, opt, progress); err != nil {
		h.t.Fatal(err)
	}
}

// good waits until the program, and its child, have looked at all of their memory.
func (h *testHost) good() {
	h.t.Helper()
	for _, who := range []string{"child", "parent"} {
		h.until(who, func() bool { return h.fileInside(who) != "" })
		if text := h.fileInside(who); text != "good" {
			h.t.Errorf("%s: %s", who, text)
		}
	}
}

// complete waits until nothing is missing, and looks whether anything is left of the filling.
func (h *testHost) complete() {
	h.t.Helper()
	h.until("memory", func() bool {
		info, err := h.Show("web")
		return err == nil && info.Missing == 0 && info.State == Running
	})
	i, err := h.get("web")
	if err != nil {
		h.t.Fatal(err)
	}
	h.until("the end of it", func() bool { i.mu.Lock(); defer i.mu.Unlock(); return i.filling == nil && i.rec.Fill == nil })
	if log := filepath.Join(h.home.Instance("web"), "pages"); h.exists(log) {
		h.t.Errorf("%s is left", log)
	}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", i.cell.Keeper.PID))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && (strings.Contains(to, "userfaultfd") || strings.HasSuffix(to, ".vps") || strings.Contains(to, "deleted")) {
			if !strings.Contains(to, "memfd:vps-") {
				h.t.Errorf("the keeper has %s open", to)
			}
		}
	}
}

func (h *testHost) exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestLazyRestore restores a large instance, which runs before its memory is there; a snapshot waits for that.
func TestLazyRestore(t *testing.T) {
	h, path := large(t, 256)
	events := h.Events(t.Context())
	h.lazily(path, RestoreOptions{}, nil)
	if info, err := h.Show("web"); err != nil || info.Missing < 100<<20 {
		t.Errorf("%d bytes are missing, %v", info.Missing, err)
	}
	if err := os.Remove(path); err != nil {
		t.Error(err)
	}
	again := h.snapshotted("web", SnapshotOptions{})
	h.good()
	h.complete()
	var told []string
	for len(told) == 0 || told[len(told)-1] != "snapshot" {
		told = append(told, (<-events).What)
	}
	if at := slices.Index(told, "filled"); at < 0 || at > slices.Index(told, "snapshot") {
		t.Errorf("events %q", told)
	}
	if len(again) < 256<<20 {
		t.Errorf("the snapshot has %d bytes", len(again))
	}
}

// TestLazyWait waits until all memory is there.
func TestLazyWait(t *testing.T) {
	h, path := large(t, 64)
	h.lazily(path, RestoreOptions{Wait: true}, func(Progress) {})
	h.complete()
	h.good()
}

// TestLazyKilled kills the daemon while memory is missing. The next one goes on, though the file is deleted; and one more.
func TestLazyKilled(t *testing.T) {
	h, path := large(t, 512)
	if err := os.WriteFile(filepath.Join(h.root, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.killedLazily(path, 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	h.killedLazily("", 30*time.Millisecond)
	h.open()
	info, err := h.Show("web")
	if err != nil || info.State != Running {
		t.Fatalf("%+v, %v", info, err)
	}
	if info.Missing == 0 {
		t.Error("nothing was missing any more")
	}
	h.good()
	h.complete()
}

// killedLazily lets a daemon of its own restore web lazily, or only take it over, and kills it after a while.
func (h *testHost) killedLazily(path string, after time.Duration) {
	h.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "VPS_TEST_DAEMON="+h.dir, "VPS_TEST_LAZY="+path+".")
	cmd.Stderr = h.t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "restored\n" {
		h.t.Errorf("lazy restore: %s%v", buf[:n], err)
	}
	time.Sleep(after)
	if err := cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	cmd.Wait()
}

// lazyOnly is a daemon that restores web lazily from a file, if one is given.
func lazyOnly(ctx context.Context, h *Host, path string) {
	if path != "." {
		f, err := os.Open(strings.TrimSuffix(path, "."))
		fail(err)
		fail(h.Restore(ctx, "web", f, RestoreOptions{Lazy: true, Resume: true}, nil))
	}
	fmt.Println("restored")
	time.Sleep(time.Hour)
}

// TestLazyStopped suspends, resumes, and ends an instance while memory is missing.
func TestLazyStopped(t *testing.T) {
	h, path := large(t, 512)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h.lazily(path, RestoreOptions{}, nil)
	for range 5 {
		if err := h.Suspend(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if err := h.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := h.Show("web"); err != nil || info.Missing == 0 {
		t.Errorf("nothing is missing any more, %v", err)
	}
	if err := h.Suspend(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if err := h.Abort(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if info, err := h.Show("web"); err != nil || info.State != Dead || info.Missing != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	h.lazily(path, RestoreOptions{Force: true}, nil)
	if err := h.Stop(t.Context(), "web", 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	h.lazily(path, RestoreOptions{Force: true}, nil)
	h.good()
	h.complete()
}

// TestLazyLost ends no instance of which memory cannot be read, but says so.
func TestLazyLost(t *testing.T) {
	h, path := large(t, 64)
	events := h.Events(t.Context())
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	// Restored suspended, so that nobody touches what is lost.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := h.Restore(t.Context(), "web", f, RestoreOptions{Lazy: true}, nil); err != nil {
		t.Fatal(err)
	}
	for at := info.Size() / 4; at < info.Size(); at += 4 << 20 {
		if _, err := f.WriteAt([]byte("spoiled"), at); err != nil {
			t.Fatal(err)
		}
	}
	for what := ""; what != "memory lost"; what = (<-events).What {
		if what == "filled" {
			t.Skip("it was faster")
		}
	}
	if info, err := h.Show("web"); err != nil || info.State != Suspended || !strings.Contains(info.Lost, "checksum mismatch") {
		t.Errorf("%+v, %v", info, err)
	}
	if err := h.Abort(t.Context(), "web"); err != nil {
		t.Error(err)
	}
}
