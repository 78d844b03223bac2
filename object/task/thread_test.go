package task

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/object"
	"vps/remote"
)

func TestThread(t *testing.T) {
	s := objecttest.Spawn(t, objecttest.UserRange)
	tid := s.Thread()
	memory := uint64(0)
	s.Run(0, func(b *remote.Batch) {
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
	s.Run(1, func(b *remote.Batch) {
		RestoreThread(b, want)
		RestoreCreds(b, want.GetCreds(), false, ^uint64(0))
		RestoreDeathSignal(b, want)
	})
	m, err := object.ReadIDMaps(s.PID)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DumpThread(objecttest.Status(t, tid), m)
	if err != nil {
		t.Fatal(err)
	}
	objecttest.Ask(s, 1, AskThread, got)
	want = proto.Clone(want).(*dump.Thread)
	want.Rseq = nil // the tracer's
	objecttest.Same(t, want, got)
	objecttest.Traced(t, tid, 0, func() {
		config := make([]byte, 24) // struct ptrace_rseq_configuration
		if _, err := objecttest.PtraceAt(unix.PTRACE_GET_RSEQ_CONFIGURATION, tid, uintptr(len(config)), config); err != nil {
			t.Fatal(err)
		}
		if a := binary.LittleEndian.Uint64(config); a != memory+0x9000 {
			t.Errorf("rseq at %#x", a)
		}
	})
	// The leader is untouched.
	if st := objecttest.Status(t, s.PID); st.Name == want.Comm || st.UIDs[0] != 200000 {
		t.Errorf("leader: %+v", st)
	}
}

func TestAffinity(t *testing.T) {
	s := objecttest.Spawn(t, nil)
	for _, c := range []struct{ restore, want []byte }{
		{nil, nil},
		{[]byte{1}, []byte{1}},
		{[]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80}, []byte{1}}, // processor 79 of another host: keeps what it has
	} {
		s.Run(0, func(b *remote.Batch) { restoreSched(b, &dump.Sched{Affinity: c.restore}) })
		got, err := dumpSched(s.PID)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.NumCPU() > 1 && !bytes.Equal(got.Affinity, c.want) {
			t.Errorf("affinity %x: got %x, want %x", c.restore, got.Affinity, c.want)
		}
	}
}
