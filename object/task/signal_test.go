package task

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/linux"
	"vps/object"
	"vps/remote"
)

func TestSigHand(t *testing.T) {
	for _, want := range []*dump.SigHand{
		{},
		{Actions: []*dump.SigAction{
			{Signal: 1, Handler: 1}, // SIG_IGN
			{Signal: 11, Handler: 0x401000, Flags: 0xc000004, Restorer: 0x401100, Mask: 1 << 3},
			{Signal: 17, Handler: 1, Flags: 2},
			{Signal: 33, Handler: 0x402000, Mask: 0xfffffffe3ffbfeff},
			{Signal: 64, Handler: 0x403000, Flags: 0x10000000},
		}},
	} {
		s := objecttest.Spawn(t, nil)
		s.Run(0, func(b *remote.Batch) {
			BlockSignals(b)
			for n := 1; n <= linux.NSIG; n++ { // whoever runs the tests may ignore some
				b.Try("default action", unix.SYS_RT_SIGACTION, n, object.Place(b, &linux.Sigaction{}), 0, linux.SigsetSize)
			}
			RestoreSigHand(b, want)
		})
		got := &dump.SigHand{}
		objecttest.Ask(s, 0, AskSigHand, got)
		objecttest.Same(t, want, got)
	}
}

// siginfo makes the first fields of a siginfo_t.
func siginfo(signal, code, pid, uid int32, value uint64) []byte {
	info := make([]byte, linux.SiginfoSize)
	for i, v := range []int32{signal, 0, code, 0, pid, uid} {
		binary.LittleEndian.PutUint32(info[4*i:], uint32(v))
	}
	binary.LittleEndian.PutUint64(info[24:], value)
	return info
}

func TestPending(t *testing.T) {
	s := objecttest.Spawn(t, nil)
	s.Run(0, BlockSignals)
	tid := s.Thread()
	shared := [][]byte{
		siginfo(40, -1, 77, 1000, 0xfeed), siginfo(40, -1, 78, 1000, 0xbeef), // two of a kind: SI_QUEUE
		siginfo(15, 0, 5, 0, 0),  // SI_USER, from another process
		siginfo(17, 1, 9, 0, 42), // CLD_EXITED
		siginfo(14, 0x80, 0, 0, 0),
	}
	own := [][]byte{siginfo(11, 1, 0, 0, 0), siginfo(34, -2, 3, 0, 1)} // SEGV_MAPERR, SI_TIMER
	queue, stop := SplitStop(append(shared, siginfo(19, 0, 1, 0, 0)))
	if !stop || len(queue) != len(shared) {
		t.Fatalf("SplitStop: %d, %v", len(queue), stop)
	}
	if err := CheckPending(queue); err != nil {
		t.Fatal(err)
	}
	s.Run(0, func(b *remote.Batch) {
		// As if a helper had died: not to be seen afterwards.
		b.Call("leftover", unix.SYS_KILL, s.PID, unix.SIGCHLD)
		RestoreSigHand(b, &dump.SigHand{Actions: []*dump.SigAction{{Signal: 17, Handler: 0x401000, Flags: 0x4000000, Restorer: 0x401000}}})
		RestorePending(b, s.PID, queue)
	})
	s.Run(1, func(b *remote.Batch) { RestoreThreadPending(b, s.PID, tid, own) })
	gotShared, gotOwn := peekSignals(t, s.PID, tid)
	for _, c := range []struct {
		what      string
		want, got [][]byte
	}{{"shared", shared, gotShared}, {"thread's own", own, gotOwn}} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s queue: -want +got\n%s", c.what, diff)
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, 128), siginfo(9, 0, 0, 0, 0), siginfo(65, 0, 0, 0, 0), siginfo(-1, 0, 0, 0, 0)} {
		if CheckPending([][]byte{bad}) == nil {
			t.Errorf("accepted % x", bad)
		}
	}
}

func peekSignals(t testing.TB, pid, tid int) (shared, own [][]byte) {
	t.Helper()
	peek := func(tid int, flags uint32) (list [][]byte) {
		objecttest.Traced(t, tid, 0, func() {
			for n := uint64(0); ; n++ {
				info := make([]byte, linux.SiginfoSize)
				args := struct {
					off   uint64
					flags uint32
					nr    int32
				}{n, flags, 1}
				got, err := objecttest.PtraceAt(unix.PTRACE_PEEKSIGINFO, tid, objecttest.AddressOf(&args), info)
				if err != nil {
					t.Fatal(err)
				}
				if got == 0 {
					return
				}
				list = append(list, info)
			}
		})
		return list
	}
	return peek(pid, 1), peek(tid, 0) // PTRACE_PEEKSIGINFO_SHARED
}
