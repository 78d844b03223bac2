package instance

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vps/cell"
	"vps/config"
)

// daemon is this test's program as a daemon of its own, to be killed: it obeys lines on its standard input.
func daemon(home string) {
	ctx := context.Background()
	h, err := Open(ctx, Options{Home: home})
	fail(err)
	if what := os.Getenv("VPS_TEST_RESTORE"); what != "" {
		restoreOnly(ctx, h, what)
	}
	if path := os.Getenv("VPS_TEST_LAZY"); path != "" {
		lazyOnly(ctx, h, path)
	}
	for {
		var verb, id, path string
		if _, err := fmt.Scanln(&verb, &id, &path); err == io.EOF {
			time.Sleep(time.Hour)
		}
		if strings.Contains(verb, "@") {
			fault(ctx, h, verb, id, path)
		}
		cfg, err := config.Load(path)
		fail(err)
		switch verb {
		case "create":
			fail(h.Create(ctx, id, cfg))
		case "start":
			fail(h.Start(ctx, id, cfg))
		case "suspend":
			fail(h.Start(ctx, id, cfg))
			fail(h.Suspend(ctx, id))
		case "half":
			i, _, err := h.claim("start", id, "")
			fail(err)
			fail(i.create(ctx, cfg, starting))
			fail(i.set(Creating, "test"))
		}
		fmt.Println("done")
	}
}

const term = syscall.SIGTERM

func fail(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// kill lets a daemon of its own do what the lines say, and kills it.
func (h *testHost) killed(lines ...string) {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "VPS_TEST_DAEMON="+h.dir)
	cmd.Stderr = h.t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	for _, line := range lines {
		fmt.Fprintln(in, line)
		buf := make([]byte, 1000)
		if n, err := out.Read(buf); err != nil || string(buf[:n]) != "done\n" {
			h.t.Errorf("%s: %s%v", line, buf[:n], err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	cmd.Wait()
}

// file writes a configuration for a daemon of its own.
func (h *testHost) file(name string, lines ...string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(h.config(lines...).Text()), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func TestTakeOver(t *testing.T) {
	h := newHost(t)
	counter := h.file("counter", initLine("trap exit\\ 4 TERM; echo up; while :; do sleep 0.01; done"))
	h.killed("start run "+counter, "create made "+counter, "suspend held "+counter, "half half "+counter, "start ended "+counter)

	// One ends while no daemon runs, once it has set its trap.
	h.awaitFile("ended", cell.HistoryFile)
	pid := h.recordedInit("ended")
	process, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(term); err != nil {
		t.Fatal(err)
	}
	h.awaitFile("ended", cell.StatusFile)

	h.open()
	for id, want := range map[string]State{"run": Running, "made": Created, "held": Suspended, "half": "", "ended": Dead} {
		if got := h.state(id); got != want {
			t.Errorf("%s is %q, want %q", id, got, want)
		}
	}
	if status, err := h.Wait(t.Context(), "ended"); err != nil || status.Code != 4 || status.Reason != "exit" {
		t.Errorf("ended: %+v, %v", status, err)
	}
	if got := h.shell("run", "echo $PPID; cat /proc/1/comm"); got != "0\nsh" {
		t.Errorf("exec after takeover: %q", got)
	}
	c, err := h.Console(t.Context(), "run")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	readUntil(t, c, "up\r\n")
	if err := h.Start(t.Context(), "made", nil); err != nil {
		t.Error(err)
	}
	if err := h.Resume(t.Context(), "held"); err != nil {
		t.Error(err)
	}
	if err := h.Kill(t.Context(), "run", int(term)); err != nil {
		t.Fatal(err)
	}
	if status, err := h.Wait(t.Context(), "run"); err != nil || status.Code != 4 {
		t.Errorf("run: %+v, %v", status, err)
	}
}

func TestCloseAndOpen(t *testing.T) {
	h := newHost(t)
	h.start("web")
	before := h.shell("web", "cat /proc/sys/kernel/random/boot_id")
	for range 3 {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		h.open()
	}
	if after := h.shell("web", "cat /proc/sys/kernel/random/boot_id"); after != before || !strings.Contains(after, "-") {
		t.Errorf("boot id %q, then %q", before, after)
	}
}

func (h *testHost) recordedInit(id string) int {
	h.t.Helper()
	i := newInstance(h.Host, id)
	if err := i.load(); err != nil {
		h.t.Fatal(err)
	}
	return i.rec.Cell.Init
}

// awaitFile waits until the keeper has written something to a file.
func (h *testHost) awaitFile(id, name string) {
	h.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if info, err := os.Stat(filepath.Join(h.home.Instance(id), name)); err == nil && info.Size() > 0 {
			return
		}
	}
	h.t.Fatalf("nothing was written to %s of %s", name, id)
}
