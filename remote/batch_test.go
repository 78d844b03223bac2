package remote

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testBase = 0x600000000000

type born struct {
	arena *Arena
	pid   int
	pidfd int
}

func spawn(t testing.TB) *born {
	t.Helper()
	a, err := NewArena(testBase, 8, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	pid, pidfd, err := Spawn(a, 0, SpawnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		unix.Wait4(pid, nil, unix.WALL, nil)
		unix.Close(pidfd)
		a.Close()
	})
	return &born{a, pid, pidfd}
}

func run(t testing.TB, b *Batch, pidfd int) {
	t.Helper()
	if err := runLimited(b, pidfd); err != nil {
		t.Fatal(err)
	}
}

func runLimited(b *Batch, pidfd int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return b.Run(ctx, pidfd)
}

func TestBatch(t *testing.T) {
	s := spawn(t)
	b := s.arena.Page(0).Batch()
	pid := b.Call("getpid", unix.SYS_GETPID)
	run(t, b, s.pidfd)
	if v, err := b.Value(pid); err != nil || int(v) != s.pid {
		t.Fatalf("getpid = %d, %v; want %d", v, err, s.pid)
	}

	b = s.arena.Page(0).Batch()
	fd := b.Call("open null", unix.SYS_OPENAT, unix.AT_FDCWD, b.String("/dev/zero"), unix.O_RDONLY, 0)
	buf := b.Data([]byte("xxxxxxxx"))
	n := b.Call("read", unix.SYS_READ, fd, buf, 8)
	run(t, b, s.pidfd)
	if v, _ := b.Value(n); v != 8 || b.Bytes(buf, 8)[7] != 0 {
		t.Fatalf("read %d bytes %q", v, b.Bytes(buf, 8))
	}
}

func TestBatchError(t *testing.T) {
	s := spawn(t)
	b := s.arena.Page(0).Batch()
	b.Try("no such call", 9999)
	b.Call("open the missing", unix.SYS_OPENAT, unix.AT_FDCWD, b.String("/missing"), unix.O_RDONLY, 0)
	after := b.Call("getpid", unix.SYS_GETPID)
	err := runLimited(b, s.pidfd)
	if !errors.Is(err, unix.ENOENT) || err.Error() != "open the missing: no such file or directory" {
		t.Fatalf("error %v", err)
	}
	if _, err := b.Value(after); !errors.Is(err, unix.ECANCELED) {
		t.Fatalf("the call after the failed one: %v", err)
	}
}

func TestBatchMistakes(t *testing.T) {
	s := spawn(t)
	b := s.arena.Page(0).Batch()
	fd := b.Call("getpid", unix.SYS_GETPID)
	b.Call("close", unix.SYS_CLOSE, fd)
	b.Call("close", unix.SYS_CLOSE, fd)
	if err := runLimited(b, s.pidfd); err == nil {
		t.Fatal("a result used twice was accepted")
	}
	b = s.arena.Page(0).Batch()
	b.Data(make([]byte, 70000))
	if err := runLimited(b, s.pidfd); err == nil {
		t.Fatal("data larger than the slot was accepted")
	}
}

func TestBornByClone(t *testing.T) {
	s := spawn(t)
	child := s.arena.Page(1).Batch()
	ppid := child.Call("getppid", unix.SYS_GETPPID)
	if err := child.Start(); err != nil { // written before it is born
		t.Fatal(err)
	}
	b := s.arena.Page(0).Batch()
	pid := b.Clone("clone", CloneArgs{Slot: s.arena.Page(1), ExitSignal: unix.SIGCHLD})
	run(t, b, s.pidfd)
	if err := child.Wait(t.Context(), s.pidfd); err != nil {
		t.Fatal(err)
	}
	if v, _ := child.Value(ppid); int(v) != s.pid {
		t.Fatalf("parent %d, want %d", v, s.pid)
	}
	v, _ := b.Value(pid)
	unix.Kill(int(v), unix.SIGKILL)
}

func TestProcessDies(t *testing.T) {
	s := spawn(t)
	b := s.arena.Page(0).Batch()
	b.Call("kill itself", unix.SYS_KILL, s.pid, unix.SIGKILL)
	b.Call("never", unix.SYS_PAUSE)
	if err := runLimited(b, s.pidfd); !errors.Is(err, ErrGone) {
		t.Fatalf("error %v, want %v", err, ErrGone)
	}
}

func TestMortal(t *testing.T) {
	s := spawn(t)
	b := s.arena.Page(0).Batch()
	b.Mode = Mortal
	b.Call("execve /missing", unix.SYS_EXECVE, b.String("/missing"), b.Strings([]string{"x"}), b.Strings(nil))
	err := runLimited(b, s.pidfd)
	if !errors.Is(err, unix.ENOENT) {
		t.Fatalf("error %v, want ENOENT", err)
	}
	var ws unix.WaitStatus
	unix.Wait4(s.pid, &ws, unix.WALL, nil)
	if ws.ExitStatus() != 127 {
		t.Fatalf("exit status %d", ws.ExitStatus())
	}
}

func BenchmarkBatch(b *testing.B) {
	s := spawn(b)
	for b.Loop() {
		batch := s.arena.Page(0).Batch()
		batch.Spin = 10000
		batch.Call("getpid", unix.SYS_GETPID)
		run(b, batch, s.pidfd)
	}
}

func TestMain(m *testing.M) { os.Exit(m.Run()) }
