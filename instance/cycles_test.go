package instance

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"vps/instance/idrange"
)

// TestManyCycles takes an instance through fifty snapshots and restores: nobody holds more afterwards.
func TestManyCycles(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	_, path := h.save(nil)
	h.cycles(path, 5) // what is kept for good is there then
	before := h.holdings()
	h.cycles(path, 50)
	h.ticks()
	memory := before["memory of the daemon, MiB"]
	h.until("no more to be held than before", func() bool {
		after := h.holdings()
		after["memory of the daemon, MiB"] = max(memory, after["memory of the daemon, MiB"]-memorySlack)
		for what, n := range after {
			if n > before[what] {
				t.Logf("%s: %d, before it was %d", what, n, before[what])
				return false
			}
		}
		return true
	})
}

// memorySlack is by how many MiB the memory of a daemon may differ from one moment to another.
const memorySlack = 8

// cycles takes a snapshot of web, which ends it, and restores it, n times.
func (h *testHost) cycles(path string, n int) {
	h.t.Helper()
	for range n {
		if err := os.WriteFile(path, h.snapshotted("web", SnapshotOptions{Stop: true}), 0o600); err != nil {
			h.t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			h.t.Fatal(err)
		}
		err = h.Restore(h.t.Context(), "web", f, RestoreOptions{Resume: true}, nil)
		f.Close()
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// holdings counts what this process, which is the daemon, and web hold.
func (h *testHost) holdings() map[string]int {
	h.t.Helper()
	i, err := h.get("web")
	if err != nil {
		h.t.Fatal(err)
	}
	runtime.GC()
	debug.FreeOSMemory()
	keeper := strconv.Itoa(i.cell.Keeper.PID)
	held := map[string]int{
		"goroutines":                runtime.NumGoroutine(),
		"memory of the daemon, MiB": resident(h.t, "self"),
		"memory of the keeper, MiB": resident(h.t, keeper),
	}
	entries := func(what, dir string) {
		list, err := os.ReadDir(dir)
		if err != nil {
			h.t.Fatal(err)
		}
		held[what] = len(list)
	}
	entries("descriptors of the daemon", "/proc/self/fd")
	entries("descriptors of the keeper", "/proc/"+keeper+"/fd")
	links, err := net.Interfaces()
	if err != nil {
		h.t.Fatal(err)
	}
	held["links"] = len(links)
	for _, line := range lines(h.t, "/proc/self/mountinfo") {
		if strings.Contains(line, h.dir) || strings.Contains(line, h.root) {
			held["mounts"]++
		}
	}
	for _, line := range lines(h.t, string(idrange.Machine)) {
		if strings.Contains(line, h.dir) {
			held["ranges of ids"]++
		}
	}
	tree := func(what, dir string, counts func(path string) bool) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && counts(path) {
				held[what]++
			}
			return nil // others come and go
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
	tree("control groups", "/sys/fs/cgroup", func(path string) bool { return strings.Contains(filepath.Dir(path), h.key) })
	tree("files", h.dir, func(string) bool { return true })
	procs, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		h.t.Fatal(err)
	}
	parent := "\nPPid:\t" + strconv.Itoa(os.Getpid()) + "\n"
	for _, status := range procs {
		if text, err := os.ReadFile(status); err == nil && strings.Contains(string(text), parent) {
			held["children"]++
		}
	}
	return held
}

func lines(t testing.TB, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// resident is how many MiB of memory a process has.
func resident(t testing.TB, pid string) int {
	t.Helper()
	for _, line := range lines(t, "/proc/"+pid+"/status") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatalf("process %s has no memory", pid)
	return 0
}
