package suspend

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vps/account"
	"vps/internal/testimage"
)

// group makes a cgroup of our own.
func group(t *testing.T) *account.Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h, err := account.Open()
	if err != nil {
		t.Fatal(err)
	}
	home := "t" + strconv.Itoa(os.Getpid())
	g, err := h.Create(home, "suspended", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Kill()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
		if err := h.RemoveHome(ctx, home); err != nil {
			t.Error(err)
		}
	})
	return g
}

const counter = `
import select, sys, time
e = select.epoll()
n = 0
while True:
    n += 1
    print(n, flush=True)
    e.poll(0.005)
`

// counting starts a program in the group that counts, waiting in epoll_wait in between.
func counting(t *testing.T, g *account.Group) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd, r := running(t, g, counter)
	r.ReadString('\n')
	return cmd, r
}

// running starts a Python program in the group.
func running(t *testing.T, g *account.Group, program string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("python3", "-c", program)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	way, err := g.Entry()
	if err != nil {
		t.Fatal(err)
	}
	defer way.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(way.Unified.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

func TestSuspendResume(t *testing.T) {
	g := group(t)
	cmd, lines := counting(t, g)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	last := 1
	for range 10 {
		if err := Suspend(ctx, g, nil); err != nil {
			t.Fatal(err)
		}
		restsWithin(t, cmd.Process.Pid, 2*time.Second)
		if tracer := statusLine(t, cmd.Process.Pid, "TracerPid:"); tracer != "0" {
			t.Fatalf("a suspended process depends on tracer %s", tracer)
		}
		if err := Resume(ctx, g, nil); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("the program has ended: %v", err)
			}
			n, _ := strconv.Atoi(strings.TrimSpace(line))
			if n != last+1 {
				t.Fatalf("%d after %d", n, last)
			}
			last = n
		}
	}
}

func TestHoldFailureLeavesItRunning(t *testing.T) {
	g := group(t)
	_, lines := counting(t, g)
	err := Hold(t.Context(), g, nil, func() bool { return true }, func(*Instance) error { return os.ErrInvalid })
	if err == nil {
		t.Fatal("the error got lost")
	}
	for range 100 { // more than the pipe holds by now
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if frozen, err := g.Frozen(); err != nil || frozen {
		t.Fatalf("frozen: %v, %v", frozen, err)
	}
}

func TestStuckTask(t *testing.T) {
	g := group(t)
	cmd, lines := running(t, g, testimage.Stuck)
	var tid int
	if _, err := fmt.Fscanln(lines, &tid); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); statusLine(t, tid, "State:") != "D (disk sleep)"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the thread does not sleep")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := Suspend(ctx, g, nil)
	if _, ok := errors.AsType[*StuckError](err); !ok {
		t.Fatalf("%v", err)
	}
	text := err.Error()
	if !strings.HasPrefix(text, fmt.Sprintf("pid %d (python3) task %d: does not stop within 2", cmd.Process.Pid, tid)) ||
		!strings.Contains(text, "0ms (uninterruptible sleep in handle_userfault)") {
		t.Errorf("%s", text)
	}
	if frozen, err := g.Frozen(); err != nil || frozen {
		t.Errorf("frozen: %v, %v", frozen, err)
	}
	if tracer := statusLine(t, tid, "TracerPid:"); tracer != "0" {
		t.Errorf("tracer %s", tracer)
	}
	for range 10 {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// restsWithin waits until the process has used no processor for a time in which it would have counted on.
func restsWithin(t *testing.T, pid int, limit time.Duration) {
	t.Helper()
	before := cpuTime(t, pid)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		after := cpuTime(t, pid)
		if after == before {
			return
		}
		before = after
	}
	t.Fatalf("a suspended process still uses the processor after %v", limit)
}

func cpuTime(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/schedstat")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func statusLine(t *testing.T, pid int, key string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
