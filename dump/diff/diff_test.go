package diff

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/internal/dumptest"
)

func must(t testing.TB, err error) {
	t.Helper()
	dumptest.Must(t, err)
}

func report(t testing.TB, a, b *dump.Snapshot) *Report {
	t.Helper()
	r, err := Snapshots(t.Context(), a, b)
	must(t, err)
	return r
}

// changed is the sample, stored otherwise, and then changed.
func changed(t testing.TB, change func(w *dump.Writer)) *dump.Snapshot {
	return dumptest.Open(t, dumptest.SampleWith(t, dump.Zstd, change))
}

func TestSame(t *testing.T) {
	a := dumptest.Open(t, dumptest.Sample(t, dump.Plain))
	for _, b := range []*dump.Snapshot{a, dumptest.Open(t, dumptest.Sample(t, dump.Zstd)), changed(t, func(*dump.Writer) {})} {
		r := report(t, a, b)
		var out bytes.Buffer
		must(t, r.Text(&out, true))
		if !r.Same() || out.Len() > 0 {
			t.Errorf("not the same: %s", &out)
		}
	}
}

func TestDifferences(t *testing.T) {
	a := dumptest.Open(t, dumptest.Sample(t, dump.Plain))
	b := changed(t, func(w *dump.Writer) {
		must(t, w.Put(4, &dump.File{Id: 4, Pos: 20, Kind: &dump.File_Memory{Memory: 5}}))
		must(t, w.Put(1, &dump.FdTable{Id: 1, Fds: []*dump.Fd{{Fd: 0, File: 3, Cloexec: true}, {Fd: 9, File: 4}}}))
		must(t, w.Put(1, &dump.Instance{Name: "web", Hostname: "web.example", Config: "NAME = web\nFSROOT = /srv/web\n",
			Sysctl: map[string]string{"kernel.shmmax": "1"}}))
		must(t, w.Delete(dump.Key{Type: dump.Type_TYPE_PROCESS, ID: 7}))
		must(t, w.Put(8, &dump.Process{Pid: 8, Ppid: 1}))
		must(t, w.Put(8, &dump.Thread{Tid: 8, Pid: 8, Comm: "cat"}))
		must(t, w.WritePages(dumptest.MM(1), []dump.Range{dumptest.Pages(2, 1), dumptest.Pages(4, 2), dumptest.Pages(7, 1)}, dumptest.Constant('x')))
		must(t, w.WithdrawPages(dumptest.MM(1), []dump.Range{dumptest.Pages(1, 1)}))
	})
	var out bytes.Buffer
	must(t, report(t, a, b).Text(&out, true))
	want := `- PROCESS 7 (pid 7 "bash")
+ PROCESS 8 (pid 8 "cat")
+ THREAD 8 (of pid 8 "cat")
~ INSTANCE 1
    + sysctl: "kernel.shmmax" "1"
~ FD_TABLE 1 (pid 1 "init")
    - fd 0: cloexec false
    + fd 0: cloexec true
    - fd 3 {fd=3 file=4}
    + fd 9 {fd=9 file=4}
~ FILE 4 (pid 1 "init" fd 9)
    - pos 10
    + pos 20
~ pages of MM 1 (pid 1 "init"): 3 changed, 1 added, 1 removed
    ~ 0x2000-0x3000
    ~ 0x4000-0x6000
    + 0x7000-0x8000
    - 0x1000-0x2000
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestFields(t *testing.T) {
	many := func(last uint32) []uint32 {
		list := make([]uint32, 100)
		list[99] = last
		return list
	}
	for _, test := range []struct {
		name string
		a, b proto.Message
		want []Field
	}{
		{"equal", &dump.Process{Pid: 1, Cwd: &dump.FileRef{Path: "/"}}, &dump.Process{Pid: 1, Cwd: &dump.FileRef{Path: "/"}}, nil},
		{"within", &dump.Process{Cwd: &dump.FileRef{Path: "/"}}, &dump.Process{Cwd: &dump.FileRef{Path: "/tmp"}}, []Field{{"cwd: path", `"/"`, `"/tmp"`}}},
		{"message that comes", &dump.Process{}, &dump.Process{Cwd: &dump.FileRef{Path: "/"}}, []Field{{"cwd", "", `{path="/"}`}}},
		{"another kind", &dump.File{Kind: &dump.File_Memory{Memory: 1}}, &dump.File{Kind: &dump.File_UnixSocket{UnixSocket: 2}},
			[]Field{{"memory", "1", ""}, {"unix_socket", "", "2"}}},
		{"end of a long list", &dump.Process{Threads: many(1)}, &dump.Process{Threads: many(2)}, nil},
		{"bytes", &dump.Thread{Xstate: make([]byte, 100)}, &dump.Thread{Xstate: append(make([]byte, 99), 1)},
			[]Field{{"xstate", `100 bytes, from 99 on "\x00"`, `100 bytes, from 99 on "\x01"`}}},
		{"mappings", &dump.Mm{Mappings: []*dump.Mapping{{Start: 0x1000, End: 0x2000}}}, &dump.Mm{Mappings: []*dump.Mapping{{Start: 0x1000, End: 0x3000}}},
			[]Field{{"mapping 0x1000: end", "8192", "12288"}}},
		{"twice the same descriptor", &dump.FdTable{Fds: []*dump.Fd{{Fd: 1, File: 1}, {Fd: 1, File: 2}}}, &dump.FdTable{Fds: []*dump.Fd{{Fd: 1, File: 1}, {Fd: 1, File: 3}}},
			[]Field{{"fd 1 (1): file", "2", "3"}}},
	} {
		got := compare(test.a, test.b)
		if test.name == "end of a long list" {
			if len(got) != 1 || got[0].Name != "threads" {
				t.Errorf("%s: %v", test.name, got)
			}
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

// TestRandomPages compares what random rounds left with a comparison page by page.
func TestRandomPages(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		var s [2]*dump.Snapshot
		for i := range s {
			script := make([]byte, 400)
			for j := range script {
				script[j] = byte(rnd.Uint32())
			}
			s[i] = dumptest.Open(t, dumptest.Script(t, script))
		}
		got := make(map[dump.Key][3]uint64)
		for _, p := range report(t, s[0], s[1]).Pages {
			got[p.Key] = [3]uint64{p.Changed, p.Added, p.Removed}
			for i, ranges := range []Ranges{p.ChangedRanges, p.AddedRanges, p.RemovedRanges} {
				var n uint64
				for _, r := range ranges {
					n += r.Len() / dumptest.PageSize
				}
				if n != got[p.Key][i] {
					t.Errorf("%s: %d pages in ranges, %d counted", p.Key, n, got[p.Key][i])
				}
			}
		}
		want := make(map[dump.Key][3]uint64)
		for _, k := range append(s[0].Keys(), s[1].Keys()...) {
			if n := byHand(s[0], s[1], k); n != [3]uint64{} {
				want[k] = n
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// byHand counts pages that changed, came and went.
func byHand(a, b *dump.Snapshot, k dump.Key) (n [3]uint64) {
	for p := range uint64(1024) {
		was, is := make([]byte, dumptest.PageSize), make([]byte, dumptest.PageSize)
		noA, noB := a.ReadPages(k, p*dumptest.PageSize, was) != nil, b.ReadPages(k, p*dumptest.PageSize, is) != nil
		switch {
		case noA && noB:
		case noA:
			n[1]++
		case noB:
			n[2]++
		case !bytes.Equal(was, is):
			n[0]++
		}
	}
	return n
}

func TestJSON(t *testing.T) {
	a := dumptest.Open(t, dumptest.Sample(t, dump.Plain))
	b := changed(t, func(w *dump.Writer) {
		must(t, w.WritePages(dumptest.MM(1), []dump.Range{dumptest.Pages(4, 1)}, dumptest.Constant('x')))
	})
	text, err := json.Marshal(report(t, a, b))
	must(t, err)
	for _, want := range []string{`"removed":[]`, `"type":"MM","id":"1"`, `"changed_pages":1`, `"changed":[{"start":"16384","end":"20480"}]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// TestNewerMinor compares records that only a newer version understands as they are stored.
func TestNewerMinor(t *testing.T) {
	file, err := os.ReadFile("../testdata/format-1.3.vps")
	must(t, err)
	newer := dumptest.Open(t, file)
	if r := report(t, newer, newer); !r.Same() {
		t.Error("not the same as itself")
	}
	b := dumptest.Open(t, dumptest.Write(t, dump.Plain, func(w *dump.Writer) {
		must(t, w.Put(2, &dump.Process{Pid: 2}))
	}))
	if r := report(t, newer, b); len(r.Changed) != 1 || len(r.Removed) != 2 {
		t.Errorf("%+v", r)
	}
}

// FuzzDiff compares snapshots, whatever they say.
func FuzzDiff(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 2, 3, 4, 5, 4, 1, 0, 3, 2, 1, 7, 5, 1}, []byte{1, 1, 4, 200, 2, 15, 3, 15, 1, 3, 6, 5, 4, 3})
	f.Fuzz(func(t *testing.T, x, y []byte) {
		a, b := dumptest.Open(t, dumptest.Script(t, x)), dumptest.Open(t, dumptest.Script(t, y))
		r := report(t, a, b)
		if r.Same() != report(t, b, a).Same() {
			t.Error("it makes a difference which one is first")
		}
		must(t, r.Text(new(bytes.Buffer), true))
		if !report(t, a, a).Same() {
			t.Error("not the same as itself")
		}
	})
}
