// Package leak finds what tests leave behind on the machine: processes, cgroups, mounts, network links and
// namespaces, temporary files. A package whose tests make such things hands its TestMain to [Main]:
//
//	func TestMain(m *testing.M) { leak.Main(m) }
package leak

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long processes may take to end, and what they held to vanish, after the tests are over.
const grace = 5 * time.Second

// supervised marks the environment of the test process that Main started.
const supervised = "VPS_LEAK_SUPERVISED"

// Main runs the tests and exits with their status, or with 1 if they left something behind, which it names
// on standard error; processes left are then killed. Test binaries that use it run one after another on a
// machine. Without root it only runs the tests.
//
// The tests run in a child, so that this process can be the reaper of all that they orphan: that tells
// their processes from everybody else's, and reaps them at once whatever pid 1 does.
func Main(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(supervised) != "" {
		os.Exit(m.Run())
	}
	lock, err := lockMachine()
	if err != nil {
		fmt.Fprintln(os.Stderr, "leak:", err)
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), supervised+"=1")
	code := Run(cmd)
	lock.Close()
	os.Exit(code)
}

// Run is Supervise with its error written to standard error: it returns the command's exit status, or 1 if
// that is 0 and there was an error.
func Run(cmd *exec.Cmd) int {
	code, err := Supervise(cmd)
	if err != nil {
		fmt.Fprintln(os.Stderr, "leak:", err)
		code = max(code, 1)
	}
	return code
}

// Supervise runs a command that inherits the standard streams and returns its exit status (128 + n if
// signal n ended it). What the command left behind is an error that names it; processes left are killed.
// It makes this process a child subreaper (prctl(2)) and waits for every child: call it once, in a
// process that does nothing else.
func Supervise(cmd *exec.Cmd) (int, error) {
	// PR_SET_PDEATHSIG goes by the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("become child subreaper: %w", err)
	}
	before, err := take()
	if err != nil {
		return 0, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()

	status, err := reapUntil(cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("wait for %s: %w", cmd.Path, err)
	}
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	left, err := leftovers(before)
	if err != nil {
		return code, err
	}
	if len(left) > 0 {
		return code, &Leftovers{left}
	}
	return code, nil
}

// Leftovers is the error for things left behind.
type Leftovers struct {
	Things []string // each with its kind and name
}

func (l *Leftovers) Error() string {
	s := "left behind:"
	for _, t := range l.Things {
		s += "\n\t" + t
	}
	return s
}

// reapUntil waits for children of this process, whichever end, until pid has.
func reapUntil(pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case got == pid:
			return status, nil
		}
	}
}

// leftovers gives what is there now and was not before some time to vanish, then kills the processes in it.
func leftovers(before *inventory) ([]string, error) {
	deadline := time.Now().Add(grace)
	for {
		alone := reapAll()
		after, err := take()
		if err != nil {
			return nil, err
		}
		left := after.minus(before)
		if alone && len(left) == 0 {
			return nil, nil
		}
		if time.Now().After(deadline) {
			killed, err := killDescendants()
			return append(killed, left...), err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// reapAll collects the children that have ended and reports whether no others are left.
func reapAll() bool {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == unix.ECHILD {
			return true
		}
		if err == nil && pid == 0 || err != nil && err != unix.EINTR {
			return false
		}
	}
}

// lockMachine waits until no other test binary of this kind runs here; closing the file lets the next one in.
func lockMachine() (*os.File, error) {
	path := filepath.Join(os.TempDir(), ".vps-test.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}
