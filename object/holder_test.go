package object

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// prelude is what every holder begins with: Python that keeps things open and tells their numbers by name.
const prelude = `
import os, sys, json, socket, time, fcntl, struct, array, signal, select, ctypes, termios
os.closerange(3, 1024)
libc = ctypes.CDLL(None, use_errno=True)
def ready(**fds):
    with open(sys.argv[1] + '.new', 'w') as f: json.dump(fds, f)
    os.rename(sys.argv[1] + '.new', sys.argv[1])
    while True: signal.pause()
`

// holder is a process that holds objects, in a mount namespace with a devpts of its own.
type holder struct {
	proc Proc
	fds  map[string]int
	dir  string
	kill func()
}

const ownDevpts = `mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx && exec "$@"`

func hold(t *testing.T, dir, script string) *holder {
	t.Helper()
	return holdWith(t, dir, script, nil)
}

func holdWith(t *testing.T, dir, script string, stdin *os.File) *holder {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ready := filepath.Join(dir, "ready")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("unshare", "-m", "sh", "-c", ownDevpts, "sh", "/usr/bin/env", "python3", "-c", prelude+script, ready)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &holder{fds: make(map[string]int), dir: dir}
	gone := false
	h.kill = func() {
		if !gone {
			gone = true
			unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			cmd.Wait()
		}
	}
	t.Cleanup(h.kill)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(ready)
		if err == nil {
			if err := json.Unmarshal(text, &h.fds); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("holder does not get ready: %s", text)
		}
	}
	h.proc = procOf(t, cmd.Process.Pid)
	return h
}

func procOf(t *testing.T, pid int) Proc {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd) })
	return Proc{PID: pid, Host: pid, PidFD: pidfd, Comm: "holder"}
}
