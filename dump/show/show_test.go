package show

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vps/dump"
	"vps/internal/dumptest"
)

var update = flag.Bool("update", false, "write the golden texts anew from the golden snapshot")

// TestGolden reads snapshots that format 1.0 wrote, and shows them as it always did.
// The snapshots themselves are never written anew: later versions of this package must read them.
func TestGolden(t *testing.T) {
	for _, name := range []string{"../testdata/format-1.0-plain", "../testdata/format-1.0-zstd"} {
		file, err := os.ReadFile(name + ".vps")
		dumptest.Must(t, err)
		s := dumptest.Open(t, file)
		dumptest.Must(t, s.Verify(t.Context()))
		golden(t, name+".text", func(w io.Writer) error { return Text(w, s, Options{Full: true}) })
		golden(t, name+".json", func(w io.Writer) error { return JSON(w, s) })
	}
}

func golden(t *testing.T, path string, print func(io.Writer) error) {
	var out bytes.Buffer
	dumptest.Must(t, print(&out))
	if *update {
		dumptest.Must(t, os.WriteFile(path, out.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	dumptest.Must(t, err)
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("%s: %s", path, diff)
	}
}

func TestPrintQuotes(t *testing.T) {
	const escape = "\x1b]0;owned\x07"
	var out bytes.Buffer
	h := dumptest.Header()
	h.Instance, h.Kernel, h.Arch, h.CpuFeatures = escape, escape, escape, []string{escape}
	w, err := dump.NewWriter(&out, h, dump.Plain)
	dumptest.Must(t, err)
	dumptest.Must(t, w.Put(1, &dump.Process{Pid: 1, Cwd: &dump.FileRef{Path: escape}, Pending: [][]byte{[]byte(escape)}}))
	dumptest.Must(t, w.Put(1, &dump.Thread{Comm: escape}))
	dumptest.Must(t, w.Put(1, &dump.Instance{Sysctl: map[string]string{escape: escape}}))
	dumptest.Must(t, w.Close())
	s := dumptest.Open(t, out.Bytes())
	for name, print := range map[string]func(io.Writer) error{
		"text": func(w io.Writer) error { return Text(w, s, Options{Full: true}) },
		"json": func(w io.Writer) error { return JSON(w, s) },
	} {
		var shown bytes.Buffer
		dumptest.Must(t, print(&shown))
		if i := strings.IndexAny(shown.String(), "\x1b\x07"); i >= 0 {
			t.Errorf("%s: byte %d would reach the terminal", name, i)
		}
		if !strings.Contains(shown.String(), "owned") {
			t.Errorf("%s: the name is not shown", name)
		}
	}
}

func TestPrintTree(t *testing.T) {
	s := dumptest.Open(t, dumptest.Write(t, dump.Plain, func(w *dump.Writer) {
		for _, p := range []struct {
			pid, parent uint32
			name        string
		}{{1, 0, "init"}, {5, 1, "sh"}, {9, 1, "getty"}, {12, 5, "sleep"}, {20, 0, "exec"}, {30, 31, "circle"}, {31, 30, "circle"}} {
			dumptest.Must(t, w.Put(uint64(p.pid), &dump.Process{Pid: p.pid, Ppid: p.parent, Threads: []uint32{p.pid}}))
			dumptest.Must(t, w.Put(uint64(p.pid), &dump.Thread{Tid: p.pid, Comm: p.name}))
		}
	}))
	var out bytes.Buffer
	dumptest.Must(t, Text(&out, s, Options{}))
	_, tree, _ := strings.Cut(out.String(), "processes\n")
	tree, _, _ = strings.Cut(tree, "\n\n")
	var got []string
	for line := range strings.SplitSeq(tree, "\n") {
		name, _, _ := strings.Cut(line, " running")
		got = append(got, name)
	}
	want := []string{`  1 "init"`, `    5 "sh"`, `      12 "sleep"`, `    9 "getty"`, `  20 "exec"`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestPrintDeepTree has a chain of processes that recursion would not survive.
func TestPrintDeepTree(t *testing.T) {
	s := dumptest.Open(t, dumptest.Write(t, dump.Plain, func(w *dump.Writer) {
		for pid := uint32(1); pid < 50_000; pid++ {
			dumptest.Must(t, w.Put(uint64(pid), &dump.Process{Pid: pid, Ppid: pid - 1}))
		}
	}))
	dumptest.Must(t, Text(io.Discard, s, Options{}))
}

func TestPrintShortens(t *testing.T) {
	s := dumptest.Open(t, dumptest.Write(t, dump.Plain, func(w *dump.Writer) {
		dumptest.Must(t, w.Put(1, &dump.Thread{Xstate: make([]byte, 2696)}))
		dumptest.Must(t, w.Put(1, &dump.FdTable{Fds: make([]*dump.Fd, 100)}))
	}))
	var short, long bytes.Buffer
	dumptest.Must(t, Text(&short, s, Options{}))
	dumptest.Must(t, Text(&long, s, Options{Full: true}))
	for _, want := range []string{"and 2664 more bytes", "and 84 more]"} {
		if !strings.Contains(short.String(), want) {
			t.Errorf("%q is not in %s", want, short.String())
		}
	}
	if strings.Contains(long.String(), "more") {
		t.Error("the full text leaves out something")
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	dumptest.Must(t, JSON(&out, dumptest.Open(t, dumptest.Sample(t, dump.Zstd))))
	var got struct {
		Schema int
		Format string
		Header struct{ Instance string }
		Pages  []struct {
			Type                 string
			ID                   string
			Stored, Shared, Zero int
		}
		Records []struct {
			Type    string
			Message json.RawMessage
		}
		Frames []struct{ Kind, Codec string }
	}
	dumptest.Must(t, json.Unmarshal(out.Bytes(), &got))
	if got.Schema != Schema || got.Format != "1.0" || got.Header.Instance != "web" || len(got.Records) != 12 || len(got.Frames) != 6 {
		t.Errorf("%+v", got)
	}
	if p := got.Pages[0]; p.Type != "MM" || p.ID != "1" || p.Stored != 2 || p.Zero != 2 {
		t.Errorf("%+v", p)
	}
	if p := got.Pages[1]; p.ID != "7" || p.Shared != 2 || p.Stored != 0 {
		t.Errorf("%+v", p)
	}
}

// TestNewerMinor shows what a later version of the format may have written: what is unknown is named.
func TestNewerMinor(t *testing.T) {
	file, err := os.ReadFile("../testdata/format-1.3.vps")
	dumptest.Must(t, err)
	s := dumptest.Open(t, file)
	var text, doc bytes.Buffer
	dumptest.Must(t, Text(&text, s, Options{}))
	dumptest.Must(t, JSON(&doc, s))
	for _, out := range []string{text.String(), doc.String()} {
		if !strings.Contains(out, "cannot read record type 77 (written by format 1.3)") {
			t.Error("the unknown record is not named in", out)
		}
	}
}

func TestNamesThatAreNotUTF8(t *testing.T) {
	s := dumptest.Open(t, dumptest.Write(t, dump.Plain, func(w *dump.Writer) {
		dumptest.Must(t, w.Put(1, &dump.Thread{Tid: 1, Comm: "\xc3cut"}))
	}))
	var text, doc bytes.Buffer
	dumptest.Must(t, Text(&text, s, Options{}))
	dumptest.Must(t, JSON(&doc, s))
	if !strings.Contains(text.String(), `comm="\xc3cut"`) || !strings.Contains(doc.String(), "cut") {
		t.Errorf("%s%s", &text, &doc)
	}
}

// FuzzShow expects that what can be verified can be shown.
func FuzzShow(f *testing.F) {
	for _, codec := range []dump.Codec{dump.Plain, dump.Zstd} {
		f.Add(dumptest.Sample(f, codec))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := dump.Open(bytes.NewReader(file), int64(len(file)))
		if err != nil || s.Verify(t.Context()) != nil {
			return
		}
		dumptest.Must(t, Text(io.Discard, s, Options{Full: true}))
		dumptest.Must(t, JSON(io.Discard, s))
	})
}
