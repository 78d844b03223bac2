package remote

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counter prints a line a moment for ever.
var counter = []string{"sh", "-c", "trap 'echo signal' USR1; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"}

// target starts a command that prints lines for ever, and returns its pid, a pidfd and its output after the first.
func target(t *testing.T, command ...string) (pid, pidfd int, lines *bufio.Reader) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command(command[0], command[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	pidfd, err = unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd) })
	lines = bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, pidfd, lines
}

func vdso(t testing.TB, pid int) (start, end uint64) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "[vdso]") {
			fmt.Sscanf(line, "%x-%x", &start, &end)
		}
	}
	return start, end
}

// traces are the lines of /proc/PID/status that an entry must not change, and the mappings.
func traces(t *testing.T, pid int) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "SigIgn") || strings.HasPrefix(line, "SigCgt") || strings.HasPrefix(line, "FDSize") {
			kept = append(kept, line)
		}
	}
	maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	return strings.Join(kept, "") + string(maps)
}

func goesOn(t *testing.T, lines *bufio.Reader) {
	t.Helper()
	first := -1
	for range 20 {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("line %q", line)
		}
		if first >= 0 && n != first+1 {
			t.Fatalf("%d after %d", n, first)
		}
		first = n
	}
}

func TestEnterLeavesNoTrace(t *testing.T) {
	pid, pidfd, lines := target(t, counter...)
	start, end := vdso(t, pid)
	before := traces(t, pid)
	for range 20 {
		err := Trace(func(tr *Tracer) error {
			th, err := tr.Seize(pid, false)
			if err != nil {
				return err
			}
			if err := th.Interrupt(); err != nil {
				return err
			}
			if err := th.WaitStop(); err != nil {
				return err
			}
			regs, err := th.Registers()
			if err != nil {
				return err
			}
			xstate, err := th.XState()
			if err != nil {
				return err
			}
			mask, err := th.SigMask()
			if err != nil {
				return err
			}
			live, err := Enter(th, pidfd, start, end, 2, 32<<10)
			if err != nil {
				return err
			}
			b := live.Arena.Page(0).Batch()
			got := b.Call("getpid", unix.SYS_GETPID)
			if err := live.Run(context.Background(), []Job{{th, b}}); err != nil {
				return err
			}
			if v, err := b.Value(got); err != nil || int(v) != pid {
				return fmt.Errorf("getpid = %d, %v", v, err)
			}
			if err := live.Leave(); err != nil {
				return err
			}
			if now, _ := th.SigMask(); now != mask {
				return fmt.Errorf("signal mask %#x, was %#x", now, mask)
			}
			after, _ := th.Registers()
			afterX, _ := th.XState()
			if after != regs || !bytes.Equal(xstate, afterX) {
				return fmt.Errorf("registers changed:\n%+v\n%+v", regs, after)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if after := traces(t, pid); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	goesOn(t, lines)
}

// TestTracerDies lets the tracing process die in the middle of a batch: the target goes on.
func TestTracerDies(t *testing.T) {
	if os.Getenv("REMOTE_TEST_DIE") != "" {
		dieInside()
		return
	}
	pid, _, lines := target(t, counter...)
	for range 5 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestTracerDies$")
		cmd.Env = append(os.Environ(), "REMOTE_TEST_DIE="+strconv.Itoa(pid))
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "dying") {
			t.Fatalf("the tracer: %v\n%s", err, out)
		}
		goesOn(t, lines)
	}
}

func dieInside() {
	pid, _ := strconv.Atoi(os.Getenv("REMOTE_TEST_DIE"))
	pidfd, _ := unix.PidfdOpen(pid, 0)
	start, end := vdso(new(testing.B), pid)
	err := Trace(func(tr *Tracer) error {
		th, err := tr.Seize(pid, false)
		if err != nil {
			return err
		}
		th.Interrupt()
		th.WaitStop()
		live, err := Enter(th, pidfd, start, end, 2, 32<<10)
		if err != nil {
			return err
		}
		b := live.Arena.Page(0).Batch()
		b.Call("getpid", unix.SYS_GETPID)
		s, err := th.State()
		if err != nil {
			return err
		}
		if err := live.start(Job{th, b}, s); err != nil {
			return err
		}
		if err := b.Wait(context.Background(), pidfd); err != nil {
			return err
		}
		fmt.Println("dying")
		unix.Kill(os.Getpid(), unix.SIGKILL)
		time.Sleep(time.Hour)
		return nil
	})
	fmt.Println(err)
}
