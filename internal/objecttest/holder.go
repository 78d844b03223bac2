package objecttest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/object"
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

// Holder is a process that holds objects, in a mount namespace with a devpts of its own.
type Holder struct {
	Proc object.Proc
	FDs  map[string]int
	Dir  string
	Kill func()
}

const ownDevpts = `mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx && exec "$@"`

// Hold makes a holder by a script in Python, which ends with a call of ready. dir is its directory.
func Hold(t *testing.T, dir, script string) *Holder {
	t.Helper()
	return HoldWith(t, dir, script, nil)
}

// HoldWith is [Hold] with a standard input.
func HoldWith(t *testing.T, dir, script string, stdin *os.File) *Holder {
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
	h := &Holder{FDs: make(map[string]int), Dir: dir}
	gone := false
	h.Kill = func() {
		if !gone {
			gone = true
			unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			cmd.Wait()
		}
	}
	t.Cleanup(h.Kill)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(ready)
		if err == nil {
			if err := json.Unmarshal(text, &h.FDs); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("holder does not get ready: %s", text)
		}
	}
	h.Proc = ProcOf(t, cmd.Process.Pid)
	return h
}

// ProcOf opens a process by its pid.
func ProcOf(t *testing.T, pid int) object.Proc {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd) })
	return object.Proc{PID: pid, Host: pid, PidFD: pidfd, Comm: "holder"}
}
