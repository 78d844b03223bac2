package object

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"vps/dump"
	"vps/linux"
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

func TestStatusOfStrangeNames(t *testing.T) {
	s := spawnTestStub(t, nil)
	for _, name := range []string{"sh", ") R 1 2 3", "a\nState: Z", `back\slash\n`, "\t x ", ""} {
		s.run(0, func(b *remote.Batch) {
			b.Call("name", unix.SYS_PRCTL, unix.PR_SET_NAME, b.String(name), 0, 0, 0)
		})
		st := status(t, s.pid)
		if st.Name != name || st.PID != s.pid || !strings.ContainsRune("RS", rune(st.State)) {
			t.Errorf("status of %q: name %q, pid %d, state %c", name, st.Name, st.PID, st.State)
		}
		stat, err := ReadStat(s.pid)
		if err != nil || stat.Comm != name || stat.PID != s.pid || stat.PPID != os.Getpid() || stat.SID != s.pid {
			t.Errorf("stat of %q: %+v, %v", name, stat, err)
		}
	}
}

func TestStatusOfNamespaces(t *testing.T) {
	st, err := parseStatus([]byte("Name:\tx\nState:\tS (sleeping)\nPid:\t300\nNSpid:\t300\t7\t1\nNSpgid:\t300\t7\t1\nNSsid:\t0\t0\t0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if pid, pgid, sid := st.Inside(); pid != 1 || pgid != 1 || sid != 0 {
		t.Errorf("inside: %d %d %d", pid, pgid, sid)
	}
	err = st.CheckLevel(2)
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "pid 7 (x)") {
		t.Errorf("nested: %v", err)
	}
	if err := st.CheckLevel(3); err != nil {
		t.Errorf("own level: %v", err)
	}
}

func TestTasks(t *testing.T) {
	s := spawnTestStub(t, nil)
	tid := s.thread()
	got, err := Tasks(s.pid)
	if err != nil || !reflect.DeepEqual(got, []int{s.pid, tid}) {
		t.Errorf("tasks %v, %v; want %d and %d", got, err, s.pid, tid)
	}
	groups, err := ReadCgroups(os.Getpid())
	if err != nil || len(groups) == 0 || !strings.HasPrefix(groups[0].Path, "/") {
		t.Errorf("cgroups %v, %v", groups, err)
	}
}

func TestCreds(t *testing.T) {
	const all = 1<<(unix.CAP_LAST_CAP+1) - 1
	for _, c := range []struct {
		name  string
		bound uint64
		nnp   bool
		creds *dump.Creds
	}{
		{"root with everything", all, false, &dump.Creds{Permitted: all, Effective: all, Bounding: all}},
		{"user", all, true, &dump.Creds{
			Uid: 1000, Euid: 1000, Suid: 1000, Fsuid: 1000, Gid: 1001, Egid: 1001, Sgid: 1001, Fsgid: 1001,
			Groups: []uint32{4, 27, 60000}, Bounding: all,
		}},
		{"all ids different", all, false, &dump.Creds{
			Uid: 1, Euid: 2, Suid: 3, Fsuid: 2, Gid: 5, Egid: 6, Sgid: 7, Fsgid: 5,
			Permitted: 1 << unix.CAP_NET_BIND_SERVICE, Bounding: all &^ (1 << unix.CAP_SYS_BOOT),
		}},
		{"ambient service", all, true, &dump.Creds{
			Uid: 33, Euid: 33, Suid: 33, Fsuid: 33, Gid: 33, Egid: 33, Sgid: 33, Fsgid: 33,
			Inheritable: 1 << unix.CAP_NET_BIND_SERVICE, Permitted: 1 << unix.CAP_NET_BIND_SERVICE,
			Effective: 1 << unix.CAP_NET_BIND_SERVICE, Ambient: 1 << unix.CAP_NET_BIND_SERVICE,
			Bounding: 1 << unix.CAP_NET_BIND_SERVICE, Securebits: secureNoSetuidFixup,
		}},
		{"inheritable outside of the bounding set", all, false, &dump.Creds{
			Inheritable: 1 << unix.CAP_CHOWN, Permitted: 1 << unix.CAP_KILL, Bounding: 1 << unix.CAP_KILL, Securebits: 0x2f,
		}},
		{"root without capabilities", all, false, &dump.Creds{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spawnTestStub(t, userRange)
			s.run(0, func(b *remote.Batch) { RestoreCreds(b, c.creds, c.nnp, c.bound) })
			got, st := dumpedCreds(s)
			same(t, c.creds, got)
			if st.NoNewPrivs != c.nnp {
				t.Errorf("no_new_privs %v, want %v", st.NoNewPrivs, c.nnp)
			}
		})
	}

	t.Run("bound", func(t *testing.T) {
		s := spawnTestStub(t, userRange)
		const bound = 1<<unix.CAP_CHOWN | 1<<unix.CAP_KILL
		s.run(0, func(b *remote.Batch) {
			RestoreCreds(b, &dump.Creds{
				Permitted: ^uint64(0), Effective: ^uint64(0), Bounding: ^uint64(0), Inheritable: ^uint64(0), Ambient: ^uint64(0),
			}, false, bound)
		})
		got, _ := dumpedCreds(s)
		same(t, &dump.Creds{Permitted: bound, Effective: bound, Bounding: bound, Inheritable: bound, Ambient: bound}, got)
	})

	t.Run("unmapped", func(t *testing.T) {
		s := spawnTestStub(t, nil)
		_, err := DumpCreds(status(t, s.pid), IDMaps{userRange, userRange})
		if err == nil || !strings.Contains(err.Error(), "uid 0 of the host has no name inside") {
			t.Errorf("error %v", err)
		}
	})
}

func dumpedCreds(s *testStub) (*dump.Creds, *Status) {
	s.t.Helper()
	m, err := ReadIDMaps(s.pid)
	if err != nil {
		s.t.Fatal(err)
	}
	st := status(s.t, s.pid)
	creds, err := DumpCreds(st, m)
	if err != nil {
		s.t.Fatal(err)
	}
	ask(s, 0, AskCreds, creds)
	return creds, st
}

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
		s := spawnTestStub(t, nil)
		s.run(0, func(b *remote.Batch) {
			BlockSignals(b)
			RestoreSigHand(b, want)
		})
		got := &dump.SigHand{}
		ask(s, 0, AskSigHand, got)
		same(t, want, got)
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
	s := spawnTestStub(t, nil)
	s.run(0, BlockSignals)
	tid := s.thread()
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
	s.run(0, func(b *remote.Batch) {
		// As if a helper had died: not to be seen afterwards.
		b.Call("leftover", unix.SYS_KILL, s.pid, unix.SIGCHLD)
		RestoreSigHand(b, &dump.SigHand{Actions: []*dump.SigAction{{Signal: 17, Handler: 0x401000, Flags: 0x4000000, Restorer: 0x401000}}})
		RestorePending(b, s.pid, queue)
	})
	s.run(1, func(b *remote.Batch) { RestoreThreadPending(b, s.pid, tid, own) })
	gotShared, gotOwn := peekSignals(t, s.pid, tid)
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

func peekSignals(t testing.TB, pid, tid int) (shared, own [][]byte) {
	t.Helper()
	peek := func(tid int, flags uint32) (list [][]byte) {
		traced(t, tid, 0, func() {
			for n := uint64(0); ; n++ {
				info := make([]byte, linux.SiginfoSize)
				args := struct {
					off   uint64
					flags uint32
					nr    int32
				}{n, flags, 1}
				got, err := ptraceAt(unix.PTRACE_PEEKSIGINFO, tid, addressOf(&args), info)
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

func TestThread(t *testing.T) {
	s := spawnTestStub(t, userRange)
	tid := s.thread()
	memory := uint64(0)
	s.run(0, func(b *remote.Batch) {
		b.Call("map", unix.SYS_MMAP, 0x7000000, 0x10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0)
		memory = 0x7000000
	})
	want := &dump.Thread{
		Tid: uint32(tid), Comm: "worker/1 (x) R", Altstack: &dump.AltStack{Sp: memory, Size: 0x4000},
		TidAddress: memory + 0x8000, RobustList: memory + 0x8100, RobustListLen: 24,
		Rseq:  &dump.Rseq{Address: memory + 0x9000, Size: 32, Signature: 0x53053053},
		Sched: &dump.Sched{Policy: 3 | schedResetOnFork, Nice: 7}, TimerSlack: 123456, PdeathSignal: 12, // SCHED_BATCH
		Creds: &dump.Creds{Uid: 7, Euid: 7, Suid: 7, Fsuid: 7},
	}
	s.run(1, func(b *remote.Batch) {
		RestoreThread(b, want)
		RestoreCreds(b, want.GetCreds(), false, ^uint64(0))
		RestoreDeathSignal(b, want)
	})
	m, err := ReadIDMaps(s.pid)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DumpThread(status(t, tid), m)
	if err != nil {
		t.Fatal(err)
	}
	ask(s, 1, AskThread, got)
	want = proto.Clone(want).(*dump.Thread)
	want.Rseq = nil // the tracer's
	same(t, want, got)
	traced(t, tid, 0, func() {
		config := make([]byte, 24) // struct ptrace_rseq_configuration
		if _, err := ptraceAt(unix.PTRACE_GET_RSEQ_CONFIGURATION, tid, uintptr(len(config)), config); err != nil {
			t.Fatal(err)
		}
		if a := binary.LittleEndian.Uint64(config); a != memory+0x9000 {
			t.Errorf("rseq at %#x", a)
		}
	})
	// The leader is untouched.
	if st := status(t, s.pid); st.Name == want.Comm || st.UIDs[0] != 200000 {
		t.Errorf("leader: %+v", st)
	}
}

func TestAffinity(t *testing.T) {
	s := spawnTestStub(t, nil)
	for _, c := range []struct{ restore, want []byte }{
		{nil, nil},
		{[]byte{1}, []byte{1}},
		{[]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80}, []byte{1}}, // processor 79 of another host: keeps what it has
	} {
		s.run(0, func(b *remote.Batch) { restoreSched(b, &dump.Sched{Affinity: c.restore}) })
		got, err := dumpSched(s.pid)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.NumCPU() > 1 && !bytes.Equal(got.Affinity, c.want) {
			t.Errorf("affinity %x: got %x, want %x", c.restore, got.Affinity, c.want)
		}
	}
}

func TestProcess(t *testing.T) {
	s := spawnTestStub(t, userRange)
	want, err := DumpProcess(status(t, s.pid))
	if err != nil {
		t.Fatal(err)
	}
	want.Umask, want.Personality, want.ChildSubreaper, want.OomScoreAdj = 0o137, 0x40000, true, 300
	want.Rlimits[unix.RLIMIT_NOFILE] = &dump.Rlimit{Soft: 100, Hard: 200}
	want.Rlimits[unix.RLIMIT_STACK].Soft = 1 << 20
	want.Itimers = []*dump.Itimer{{}, {Interval: 5e9, Value: 3600e9}, {Value: 7200e9}}
	hard, err := HardLimits()
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckRlimits(want, hard); err != nil {
		t.Fatal(err)
	}
	s.run(0, func(b *remote.Batch) {
		RestoreProcess(b, want)
		RestoreItimers(b, want)
		RestoreRlimits(b, want, hard)
	})
	if err := RestoreOOMScore(s.pid, want); err != nil {
		t.Fatal(err)
	}
	got, err := DumpProcess(status(t, s.pid))
	if err != nil {
		t.Fatal(err)
	}
	ask(s, 0, AskProcess, got)
	for i, v := range got.Itimers { // CPU time passes slowly
		near(t, "interval timer", want.Itimers[i].GetValue(), v.GetValue(), 100*time.Millisecond)
		v.Value = want.Itimers[i].GetValue()
	}
	same(t, want, got)

	want.OomScoreAdj = -300
	if err := RestoreOOMScore(s.pid, want); err == nil || !strings.Contains(err.Error(), "is less than") {
		t.Errorf("lower oom_score_adj: %v", err)
	}
}

func near(t testing.TB, what string, want, got int64, slack time.Duration) {
	t.Helper()
	if d := time.Duration(want - got); d < -10*time.Millisecond || d > slack { // CPU time counts in ticks
		t.Errorf("%s: %v left, want %v", what, time.Duration(got), time.Duration(want))
	}
}

func TestRlimitsAbove(t *testing.T) {
	s := spawnTestStub(t, userRange)
	hard, err := HardLimits()
	if err != nil {
		t.Fatal(err)
	}
	hard[unix.RLIMIT_NOFILE], hard[unix.RLIMIT_MEMLOCK] = 1000, 4096
	p := &dump.Process{Pid: 9, Rlimits: make([]*dump.Rlimit, len(hard))}
	for i := range p.Rlimits {
		p.Rlimits[i] = &dump.Rlimit{}
	}
	p.Rlimits[unix.RLIMIT_NOFILE] = &dump.Rlimit{Soft: 1024, Hard: 4096}
	p.Rlimits[unix.RLIMIT_MEMLOCK] = &dump.Rlimit{Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY}
	err = CheckRlimits(p, hard)
	want := "pid 9: this host cannot give RLIMIT_NOFILE 4096 (here at most 1000), RLIMIT_MEMLOCK unlimited (here at most 4096) without CAP_SYS_RESOURCE"
	if err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
	s.run(0, func(b *remote.Batch) { RestoreRlimits(b, p, hard) })
	got, err := ReadRlimits(s.pid)
	if err != nil {
		t.Fatal(err)
	}
	same(t, &dump.Rlimit{Soft: 1000, Hard: 1000}, got[unix.RLIMIT_NOFILE])
	same(t, &dump.Rlimit{Soft: 4096, Hard: 4096}, got[unix.RLIMIT_MEMLOCK])
}

func TestZombie(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command("sh", "-c", "kill -9 $$")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	p, err := DumpProcess(status(t, cmd.Process.Pid))
	if err != nil || p.State != dump.Process_ZOMBIE || syscall.WaitStatus(p.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("zombie: %v, %v", p, err)
	}
}
