package remote

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vps/internal/testimage"
)

func TestStuckThread(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command("python3", "-c", testimage.Stuck)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewReader(out)
	var tid int
	if _, err := fmt.Fscanln(lines, &tid); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, tid, "State:\tD (disk sleep)")
	begin := time.Now()
	err = Trace(func(tr *Tracer) error {
		tr.Patience = 100 * time.Millisecond
		for _, id := range []int{cmd.Process.Pid, tid} {
			th, err := tr.Seize(id, false)
			if err != nil {
				return err
			}
			if err := th.Interrupt(); err != nil {
				return err
			}
			if err := th.WaitStop(); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, ErrStuck) || err.Error() != fmt.Sprintf("task %d: does not stop within 100ms", tid) {
		t.Errorf("%v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	awaitStatus(t, tid, "TracerPid:\t0")
	awaitStatus(t, cmd.Process.Pid, "TracerPid:\t0")
	goesOn(t, lines)
}

// awaitStatus waits until a task's status has a line.
func awaitStatus(t *testing.T, tid int, line string) {
	t.Helper()
	var status []byte
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var err error
		if status, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", tid)); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(status), "\n"+line+"\n") {
			return
		}
	}
	t.Fatalf("task %d has no line %q:\n%s", tid, line, status)
}
