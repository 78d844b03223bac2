package task

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/remote"
)

// denyProgram answers errno to one system call and allows all others.
func denyProgram(nr, errno uint32) []byte {
	var p []byte
	for _, f := range []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	} {
		p = binary.LittleEndian.AppendUint16(p, f.Code)
		p = append(p, f.Jt, f.Jf)
		p = binary.LittleEndian.AppendUint32(p, f.K)
	}
	return p
}

// killProgram lets nothing pass.
func killProgram() []byte {
	p := []byte{unix.BPF_RET | unix.BPF_K, 0, 0, 0}
	return binary.LittleEndian.AppendUint32(p, unix.SECCOMP_RET_KILL_PROCESS)
}

// readFilters reads the filters of a thread that the caller has stopped, by ascending index.
func readFilters(t testing.TB, tid int) (list []SeccompFilter) {
	t.Helper()
	for i := uintptr(0); ; i++ {
		n, err := objecttest.PtraceAt(unix.PTRACE_SECCOMP_GET_FILTER, tid, i, nil)
		if err == unix.ENOENT {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, n*sockFilterSize)
		if _, err := objecttest.PtraceAt(unix.PTRACE_SECCOMP_GET_FILTER, tid, i, p); err != nil {
			t.Fatal(err)
		}
		list = append(list, SeccompFilter{Program: p})
	}
}

// Index 0 of PTRACE_SECCOMP_GET_FILTER is the oldest filter.
func TestSeccompRestore(t *testing.T) {
	s := objecttest.Spawn(t, objecttest.UserRange)
	chain := []*dump.Seccomp{
		{Id: 1, Program: denyProgram(unix.SYS_GETPID, 7)},
		{Id: 2, Parent: 1, Program: denyProgram(unix.SYS_GETPPID, 8)},
		{Id: 3, Parent: 2, Program: killProgram()}, // even for the stub's own calls
	}
	thread := &dump.Thread{Tid: 1, Seccomp: 3, SeccompMode: 2, Creds: &dump.Creds{Uid: 5, Euid: 5, Suid: 5, Fsuid: 5}}
	records := map[uint64]*dump.Seccomp{1: chain[0], 2: chain[1], 3: chain[2]}
	ordered, err := SeccompChain(thread, records)
	if err != nil {
		t.Fatal(err)
	}
	var got []SeccompFilter
	tracedRun(t, s.PID, unix.PTRACE_O_SUSPEND_SECCOMP, func() {
		s.Run(0, func(b *remote.Batch) {
			RestoreSeccomp(b, thread, ordered, true)
			RestoreCreds(b, thread.Creds, false, ^uint64(0))
		})
	}, func() { got = readFilters(t, s.PID) })
	if len(got) != len(chain) {
		t.Fatalf("%d filters, want %d", len(got), len(chain))
	}
	for i := range got {
		if !bytes.Equal(got[i].Program, chain[i].Program) {
			t.Errorf("filter %d differs", i)
		}
	}
	// Back to records: the same chain, without the manager's one at its bottom.
	all := NewSeccomps(1)
	dumped := &dump.Thread{SeccompMode: 2}
	if err := all.Add(dumped, got); err != nil {
		t.Fatal(err)
	}
	if dumped.Seccomp != 2 || len(all.Records()) != 2 || !bytes.Equal(all.Records()[0].Program, chain[1].Program) {
		t.Errorf("records %v, thread has %d", all.Records(), dumped.Seccomp)
	}
}

// tracedRun runs a batch in a traced, running stub; then it stops it and calls after.
func tracedRun(t testing.TB, tid int, options uintptr, batch, after func()) {
	t.Helper()
	objecttest.Traced(t, tid, options, func() {
		if _, err := objecttest.PtraceAt(unix.PTRACE_CONT, tid, 0, nil); err != nil {
			t.Fatal(err)
		}
		batch()
		if _, err := objecttest.PtraceAt(unix.PTRACE_INTERRUPT, tid, 0, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Wait4(tid, nil, unix.WALL, nil); err != nil {
			t.Fatal(err)
		}
		after()
		unix.Kill(tid, unix.SIGKILL) // it would not survive the end of the suspension
	})
}

func TestSeccompRecords(t *testing.T) {
	base := SeccompFilter{Program: denyProgram(1, 1)}
	a, b := SeccompFilter{Program: denyProgram(2, 1)}, SeccompFilter{Program: denyProgram(3, 1)}
	logged := SeccompFilter{Program: a.Program, Flags: unix.SECCOMP_FILTER_FLAG_LOG}
	s := NewSeccomps(1)
	for i, c := range []struct {
		filters []SeccompFilter
		newest  uint64
	}{
		{nil, 0}, // no filter, not the manager's either: vps0, a stub
		{[]SeccompFilter{base}, 0},
		{[]SeccompFilter{base, a}, 1},
		{[]SeccompFilter{base, a, b}, 2},
		{[]SeccompFilter{base, a}, 1},
		{[]SeccompFilter{base, b}, 3},
		{[]SeccompFilter{base, logged}, 4},
		{[]SeccompFilter{base, a, a}, 5},
	} {
		thread := &dump.Thread{}
		if err := s.Add(thread, c.filters); err != nil || thread.Seccomp != c.newest {
			t.Errorf("case %d: %d, %v; want %d", i, thread.Seccomp, err, c.newest)
		}
	}
	if len(s.Records()) != 5 {
		t.Errorf("%d records", len(s.Records()))
	}
	asking := append([]byte{unix.BPF_RET | unix.BPF_K, 0, 0, 0}, 0, 0, 0xc0, 0x7f)
	err := s.Add(&dump.Thread{Tid: 3, Comm: "x"}, []SeccompFilter{base, {Program: asking}})
	if err == nil || !strings.Contains(err.Error(), "asks a supervisor") {
		t.Errorf("user notification: %v", err)
	}
}

func TestForgedSeccomp(t *testing.T) {
	p := killProgram()
	for name, records := range map[string]map[uint64]*dump.Seccomp{
		"missing": {},
		"circle":  {1: {Parent: 2, Program: p}, 2: {Parent: 1, Program: p}},
		"odd":     {1: {Program: p[:7]}},
		"empty":   {1: {}},
		"huge":    {1: {Program: make([]byte, 8*4097)}},
		"flags":   {1: {Program: p, Flags: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER}},
	} {
		if _, err := SeccompChain(&dump.Thread{Seccomp: 1}, records); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
