package restore_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object/recordset"
)

// busyboxSnapshot is a real snapshot of a small instance, in memory. The instance has ended.
func busyboxSnapshot(t *testing.T, s *site) []byte {
	t.Helper()
	s.start("/bin/sh", "-c", "echo > /tmp/up; while :; do sleep 1000; done")
	s.read("tmp/up", lines(1))
	data, err := os.ReadFile(s.snapshot())
	if err != nil {
		t.Fatal(err)
	}
	s.end()
	return data
}

func open(t testing.TB, data []byte) *dump.Snapshot {
	t.Helper()
	s, err := dump.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRefusedRecords has what no single field tells: what would reach beyond the instance, and what this host cannot give.
func TestRefusedRecords(t *testing.T) {
	s := newSite(t)
	snapshot := open(t, busyboxSnapshot(t, s))
	recs := readRecords(t, snapshot)
	arena := uint64(0x100000000000)
	for _, test := range []struct {
		name   string
		key    dump.Key
		change func(proto.Message)
		want   string
	}{
		{"vDSO", dump.Key{Type: dump.Type_TYPE_MM, ID: 1}, func(m proto.Message) {
			for _, mapping := range m.(*dump.Mm).Mappings {
				if mapping.Kind == dump.Mapping_VDSO {
					mapping.End += 4096
				}
			}
		}, "address space 1: the vDSO of the snapshot's kernel (VVAR"},
		{"limit", dump.Key{Type: dump.Type_TYPE_PROCESS, ID: 1}, func(m proto.Message) {
			m.(*dump.Process).Rlimits[7].Hard = math.MaxUint64
		}, "pid 1: this host cannot give RLIMIT_NOFILE unlimited (here at most "},
		{"stub's descriptors", dump.Key{Type: dump.Type_TYPE_PROCESS, ID: 1}, func(m proto.Message) {
			m.(*dump.Process).Cwd.Path = "/proc/self/root/proc/self/cwd"
		}, "/proc/self/root/proc/self/cwd: too many levels of symbolic links"},
		{"arena mapped", dump.Key{Type: dump.Type_TYPE_MM, ID: 1}, func(m proto.Message) {
			mm := m.(*dump.Mm)
			mm.Mappings = append([]*dump.Mapping{{Start: 0x10000, End: 0x11000, Prot: 3, Shared: true, Kind: dump.Mapping_FILE, MaxWrite: true,
				File: &dump.FileRef{Path: "/proc/self/fd/3", Mode: 0o100600}}}, mm.Mappings...)
		}, "/proc/self/fd/3: too many levels of symbolic links"},
		{"arena in rseq", dump.Key{Type: dump.Type_TYPE_THREAD, ID: 1}, func(m proto.Message) {
			m.(*dump.Thread).Rseq = &dump.Rseq{Address: arena + 4096, Size: 32, Signature: 1}
		}, "process 1: thread 1: area of restartable sequences 0x100000001000 is not in its memory"},
		{"arena in a sleep", dump.Key{Type: dump.Type_TYPE_THREAD, ID: 1}, func(m proto.Message) {
			m.(*dump.Thread).Restart = &dump.Restart{Kind: dump.Restart_NANOSLEEP, Remaining: 1e9, Rmtp: arena}
		}, "thread 1: rest of a sleep 0x100000000000"},
		{"arena in poll", dump.Key{Type: dump.Type_TYPE_THREAD, ID: 1}, func(m proto.Message) {
			th := m.(*dump.Thread)
			th.Restart = &dump.Restart{Kind: dump.Restart_POLL, Remaining: 1e9}
			th.Regs.Rdi, th.Regs.Rsi = arena, 1
		}, "thread 1: array of poll 0x100000000000"},
		{"everything mapped", dump.Key{Type: dump.Type_TYPE_MM, ID: 1}, func(m proto.Message) {
			mm := m.(*dump.Mm)
			mm.Mappings = append([]*dump.Mapping{{Start: 0, End: math.MaxUint64, Kind: dump.Mapping_VSYSCALL}}, mm.Mappings...)
		}, "address space 1: mapping 0x0-0xffffffffffffffff: not possible"},
	} {
		t.Run(test.name, func(t *testing.T) {
			message := proto.Clone(recs.messages[test.key])
			test.change(message)
			err := s.attempt(recs.write(t, map[dump.Key]proto.Message{test.key: message}, snapshot))
			s.end()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
			if test.name != "limit" {
				return
			}
			s.force = true
			defer func() { s.force = false }()
			if err := s.attempt(recs.write(t, map[dump.Key]proto.Message{test.key: message}, snapshot)); err != nil {
				t.Errorf("forced: %v", err)
			}
			s.end()
			if len(s.warned) != 1 || !strings.Contains(s.warned[0], test.want) {
				t.Errorf("forced, it warns of %q", s.warned)
			}
		})
	}
}

// Pages are written into a process's memory from outside: where none of its own is, there may be ours.
func TestPagesOutsideOfMemory(t *testing.T) {
	recs := readRecords(t, open(t, readFile(t, recordsFile)))
	set, err := recordset.Load(recs.write(t, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	first := set.Mms[1].GetMappings()[0]
	for name, r := range map[string]dump.Range{
		"arena":      {Start: 0x100000000000, End: 0x100000001000},
		"before":     {Start: first.GetStart() - 4096, End: first.GetStart() + 4096},
		"everywhere": {Start: 0, End: 1 << 62},
	} {
		for _, zero := range []bool{true, false} {
			if name == "everywhere" && !zero {
				continue
			}
			var buf bytes.Buffer
			w, err := dump.NewWriter(&buf, recs.header, dump.Plain)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range recs.keys {
				if err := w.Put(k.ID, recs.messages[k]); err != nil {
					t.Fatal(err)
				}
			}
			key := dump.Key{Type: dump.Type_TYPE_MM, ID: 1}
			if zero {
				err = w.WriteZeros(key, []dump.Range{r})
			} else {
				err = w.WritePages(key, []dump.Range{r}, func(buf []byte, _ []dump.Range) error { buf[0] = 1; buf[len(buf)-1] = 1; return nil })
			}
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := recordset.Load(open(t, buf.Bytes())); err == nil || !strings.Contains(err.Error(), "address space 1: pages 0x") {
				t.Errorf("%s, zero %v: %v", name, zero, err)
			}
		}
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestFlippedBits flips bits all over a real snapshot: in every byte of its records, and here and there in its pages.
func TestFlippedBits(t *testing.T) {
	s := newSite(t)
	data := busyboxSnapshot(t, s)
	whole := open(t, data)
	inPages := make([]bool, len(data))
	for _, f := range whole.Frames() {
		for i := range f.Size {
			inPages[int(f.Start)+i] = true
		}
	}
	count := 0
	for at := range data {
		const sparse = 101
		if inPages[at] && at%sparse != 0 && !*everyMutation {
			continue
		}
		count++
		bit := byte(1) << (at % 8)
		data[at] ^= bit
		if err := dump.Verify(t.Context(), bytes.NewReader(data), int64(len(data))); err == nil {
			t.Errorf("bit %#x of byte %d is not missed", bit, at)
		} else if !strings.Contains(err.Error(), "offset ") {
			t.Errorf("byte %d: no offset: %v", at, err)
		}
		load(t, data, at, inPages[at])
		data[at] ^= bit
	}
	t.Logf("%d of %d bytes", count, len(data))
}

// load reads a snapshot in which byte at is wrong, as a restore does before it makes anything.
func load(t *testing.T, data []byte, at int, inPages bool) {
	t.Helper()
	s, err := dump.Open(bytes.NewReader(data), int64(len(data)))
	if err == nil {
		_, err = recordset.Load(s)
	}
	if inPages != (err == nil) {
		t.Errorf("byte %d: in pages %v, %v", at, inPages, err)
	}
	if _, ok := errors.AsType[*dump.FormatError](err); err != nil && !ok {
		t.Errorf("byte %d: it is no error of the format: %v", at, err)
	}
}
