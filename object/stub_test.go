package object

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"

	"vps/remote"
)

// testStub is a stub of a test's own.
type testStub struct {
	t     testing.TB
	arena *remote.Arena
	pid   int
	pidfd int
}

// userRange are the ids of a stub in a user namespace of its own.
var userRange = []remote.IDMap{{Inside: 0, Host: 200000, Size: 65536}}

// spawnTestStub makes a stub that ends with the test; ids as in [remote.SpawnOptions].
func spawnTestStub(t testing.TB, ids []remote.IDMap) *testStub {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	a, err := remote.NewArena(0x600000000000, 40, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	pid, pidfd, err := remote.Spawn(a, 0, remote.SpawnOptions{UserNS: ids})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		unix.Wait4(pid, nil, unix.WALL, nil)
		unix.Close(pidfd)
		a.Close()
	})
	return &testStub{t, a, pid, pidfd}
}

// run lets the stub in a slot run a batch.
func (s *testStub) run(slot int, build func(b *remote.Batch)) {
	s.t.Helper()
	if err := s.try(slot, build); err != nil {
		s.t.Fatal(err)
	}
}

func (s *testStub) try(slot int, build func(b *remote.Batch)) error {
	b := s.arena.Page(slot).Batch()
	build(b)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return b.Run(ctx, s.pidfd)
}

// ask runs an Ask function and fills in a record with the answer.
func ask[T any](s *testStub, slot int, question func(b *remote.Batch) func(T) error, record T) {
	s.t.Helper()
	var answer func(T) error
	s.run(slot, func(b *remote.Batch) { answer = question(b) })
	if err := answer(record); err != nil {
		s.t.Fatal(err)
	}
}

// thread makes a second thread, in slot 1, and returns its tid.
func (s *testStub) thread() int {
	s.t.Helper()
	var b *remote.Batch
	var tid remote.Result
	s.run(0, func(batch *remote.Batch) {
		b = batch
		tid = b.Clone("clone", remote.CloneArgs{Slot: s.arena.Page(1),
			Flags: unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM})
	})
	v, err := b.Value(tid)
	if err != nil {
		s.t.Fatal(err)
	}
	return int(v)
}

func status(t testing.TB, pid int) *Status {
	t.Helper()
	s, err := ReadStatus(pid)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func same(t testing.TB, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// traced runs f while tid is stopped by this thread's ptrace.
func traced(t testing.TB, tid int, options uintptr, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ptrace := func(request, addr, data uintptr) {
		t.Helper()
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, request, uintptr(tid), addr, data, 0, 0); errno != 0 {
			t.Fatalf("ptrace %#x: %v", request, errno)
		}
	}
	ptrace(unix.PTRACE_SEIZE, 0, options)
	ptrace(unix.PTRACE_INTERRUPT, 0, 0)
	if _, err := unix.Wait4(tid, nil, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	f()
	ptraceAt(unix.PTRACE_DETACH, tid, 0, nil) // f may have killed it
}

func near(t testing.TB, what string, want, got int64, slack time.Duration) {
	t.Helper()
	if d := time.Duration(want - got); d < -10*time.Millisecond || d > slack { // CPU time counts in ticks
		t.Errorf("%s: %v left, want %v", what, time.Duration(got), time.Duration(want))
	}
}
