package leak

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets a test run Supervise in a process of its own, as it must be.
func TestMain(m *testing.M) {
	if script := os.Getenv("LEAK_TEST_SCRIPT"); script != "" {
		code, err := Supervise(exec.Command("/bin/sh", "-c", script))
		var left *Leftovers
		if errors.As(err, &left) {
			for _, t := range left.Things {
				fmt.Println(t)
			}
		} else if err != nil {
			fmt.Println("error:", err)
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func supervise(t *testing.T, script string) (output string, code int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LEAK_TEST_SCRIPT="+script)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestNothingLeft(t *testing.T) {
	out, code := supervise(t, "(sleep 0.1 &) ; exit 7")
	if code != 7 || out != "" {
		t.Errorf("status %d, output %q; want 7 and nothing", code, out)
	}
}

func TestSignalIsInStatus(t *testing.T) {
	if out, code := supervise(t, "kill -9 $$"); code != 128+9 || out != "" {
		t.Errorf("status %d, output %q; want 137 and nothing", code, out)
	}
}

func TestLeftoversAreNamed(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the grace period")
	}
	script := "touch $TMPDIR/vps-forgotten $TMPDIR/other; setsid sh -c 'sleep 1000 & sleep 1001' >/dev/null 2>&1 &"
	dir := t.TempDir()
	wants := []string{"file " + dir + "/vps-forgotten\n", "(sh)\n", "(sleep)\n"}
	if root := cgroupRoot(); root != "" && os.Geteuid() == 0 {
		cgroup := root + "/vps-leak-test"
		t.Cleanup(func() { os.Remove(cgroup) })
		script = "mkdir " + cgroup + "; " + script
		wants = append(wants, "cgroup "+cgroup+"\n")
	}
	t.Setenv("TMPDIR", dir)
	out, _ := supervise(t, script)
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "other") {
		t.Errorf("names a file that is not ours:\n%s", out)
	}
	if n := strings.Count(out, "(sleep)"); n != 2 {
		t.Errorf("names %d processes called sleep, want 2:\n%s", n, out)
	}
}

// cgroupRoot is the root of the cgroup v2 hierarchy, or "" where there is none.
func cgroupRoot() string {
	for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(dir + "/cgroup.controllers"); err == nil {
			return dir
		}
	}
	return ""
}
