// Package objecttest has what the tests of kernel objects have in common: stubs whose objects they make, dump and
// restore.
package objecttest

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"

	"vps/object"
	"vps/remote"
)

// Stub is a stub of a test's own.
type Stub struct {
	T     testing.TB
	Arena *remote.Arena
	PID   int // here
	PidFD int
}

// UserRange are the ids of a stub in a user namespace of its own.
var UserRange = []remote.IDMap{{Inside: 0, Host: 200000, Size: 65536}}

// Spawn makes a stub that ends with the test; ids as in [remote.SpawnOptions].
func Spawn(t testing.TB, ids []remote.IDMap) *Stub {
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
	return &Stub{t, a, pid, pidfd}
}

// Run lets the stub in a slot run a batch.
func (s *Stub) Run(slot int, build func(b *remote.Batch)) {
	s.T.Helper()
	if err := s.Try(slot, build); err != nil {
		s.T.Fatal(err)
	}
}

// Try is [Stub.Run] for a batch that may fail.
func (s *Stub) Try(slot int, build func(b *remote.Batch)) error {
	b := s.Arena.Page(slot).Batch()
	build(b)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return b.Run(ctx, s.PidFD)
}

// Ask runs an Ask function and fills in a record with the answer.
func Ask[T any](s *Stub, slot int, question func(b *remote.Batch) func(T) error, record T) {
	s.T.Helper()
	var answer func(T) error
	s.Run(slot, func(b *remote.Batch) { answer = question(b) })
	if err := answer(record); err != nil {
		s.T.Fatal(err)
	}
}

// Thread makes a second thread, in slot 1, and returns its tid.
func (s *Stub) Thread() int {
	s.T.Helper()
	var b *remote.Batch
	var tid remote.Result
	s.Run(0, func(batch *remote.Batch) {
		b = batch
		tid = b.Clone("clone", remote.CloneArgs{Slot: s.Arena.Page(1),
			Flags: unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM})
	})
	v, err := b.Value(tid)
	if err != nil {
		s.T.Fatal(err)
	}
	return int(v)
}

// Status is [object.ReadStatus].
func Status(t testing.TB, pid int) *object.Status {
	t.Helper()
	s, err := object.ReadStatus(pid)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Same compares two records.
func Same(t testing.TB, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// Traced runs f while tid is stopped by this thread's ptrace.
func Traced(t testing.TB, tid int, options uintptr, f func()) {
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
	PtraceAt(unix.PTRACE_DETACH, tid, 0, nil) // f may have killed it
}

// Near tells whether two times in nanoseconds are the same but for what passes during a test.
func Near(t testing.TB, what string, want, got int64, slack time.Duration) {
	t.Helper()
	if d := time.Duration(want - got); d < -10*time.Millisecond || d > slack { // CPU time counts in ticks
		t.Errorf("%s: %v left, want %v", what, time.Duration(got), time.Duration(want))
	}
}

// AddressOf is an address for a system call that does not keep it.
func AddressOf[T any](v *T) uintptr { return uintptr(unsafe.Pointer(v)) }

// PtraceAt is ptrace(2), of a thread that the caller traces.
func PtraceAt(request, tid int, addr uintptr, data []byte) (int, error) {
	var at uintptr
	if data != nil {
		at = AddressOf(&data[0])
	}
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, at, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
