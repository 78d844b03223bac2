package remote

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits in epoll_wait with threads, and says so if a wait is interrupted before its time.
const poller = `
import ctypes, select, sys, threading, time
libc = ctypes.CDLL(None)
def wait():
    e = select.epoll()
    while True:
        if libc.epoll_wait(e.fileno(), ctypes.create_string_buffer(12), 1, 300) != 0:
            print("interrupted", flush=True)
for i in range(7):
    threading.Thread(target=wait, daemon=True).start()
i = 0
while True:
    i += 1
    print(i, flush=True)
    time.sleep(0.01)
`

func TestPauseAndOpen(t *testing.T) {
	pid, pidfd, lines := target(t, "python3", "-c", poller)
	before := traces(t, pid)
	start, end := vdso(t, pid)
	at, err := FindSyscall(pid, start, end)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		err := Pause(pid, func(threads []*Thread) error {
			if len(threads) != 8 || threads[0].TID != pid {
				t.Errorf("%d threads, the first is %d", len(threads), threads[0].TID)
			}
			f, err := threads[0].Open(pidfd, at, unix.SYS_MEMFD_CREATE, start+8, unix.MFD_CLOEXEC)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("ours")
			return err
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

// What was asked to stop, and let go before that, is not interrupted either.
func TestDetachBeforeStop(t *testing.T) {
	pid, _, lines := target(t, "python3", "-c", poller)
	goesOn(t, lines)
	for range 20 {
		err := Trace(func(tr *Tracer) error {
			tids, err := Tasks(pid)
			if err != nil {
				return err
			}
			for _, tid := range tids {
				th, err := tr.Seize(tid, false)
				if err != nil {
					return err
				}
				if err := th.Interrupt(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	goesOn(t, lines)
}

// TestPauseIsPatient has a thread take longer with what it does for us than it may take to stop, as it does on a busy machine.
func TestPauseIsPatient(t *testing.T) {
	pid, _, lines := target(t, "python3", "-c", poller)
	start, end := vdso(t, pid)
	at, err := FindSyscall(pid, start, end)
	if err != nil {
		t.Fatal(err)
	}
	err = Pause(pid, func(threads []*Thread) error {
		saved, err := threads[0].State()
		if err != nil {
			return err
		}
		if _, err := threads[0].call(at, unix.SYS_POLL, 0, 0, uint64(5*stopPatience.Milliseconds())); err != nil {
			return err
		}
		return threads[0].back(saved)
	})
	if err != nil {
		t.Fatal(err)
	}
	goesOn(t, lines)
}

// TestPauseGivesUp has a process whose first thread waits in vfork(2).
func TestPauseGivesUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const program = `
import ctypes, os, threading, time
def count():
    i = 0
    while True:
        i += 1
        print(i, flush=True)
        time.sleep(0.01)
threading.Thread(target=count, daemon=True).start()
# posix_spawn waits for the shell to be executed, which a FIFO that nobody writes delays.
os.mkfifo(GATE)
libc = ctypes.CDLL(None)
actions = ctypes.create_string_buffer(256)
libc.posix_spawn_file_actions_init(actions)
libc.posix_spawn_file_actions_addopen(actions, 0, GATE.encode(), os.O_RDONLY, 0)
argv = (ctypes.c_char_p * 2)(b"true", None)
libc.posix_spawn(ctypes.byref(ctypes.c_int()), b"/bin/true", actions, None, argv, None)
print("spawned", flush=True)
while True:
    time.sleep(1)
`
	gate := t.TempDir() + "/gate"
	cmd := exec.Command("python3", "-c", strings.ReplaceAll(program, "GATE", `"`+gate+`"`))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewReader(out)
	goesOn(t, lines)
	for {
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)); err == nil && strings.Contains(string(state), ") D ") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	go func() {
		time.Sleep(100 * time.Millisecond)
		os.WriteFile(gate, nil, 0)
	}()
	err = Pause(cmd.Process.Pid, func([]*Thread) error {
		t.Error("stopped a process in vfork")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "does not stop") || time.Since(begin) > time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "spawned\n" {
			return
		}
	}
}
