package dump

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden texts anew from the golden snapshot")

// TestGolden reads snapshots that format 1.0 wrote, and shows them as it always did.
// The snapshots themselves are never written anew: later versions of this package must read them.
func TestGolden(t *testing.T) {
	for _, name := range []string{"testdata/format-1.0-plain", "testdata/format-1.0-zstd"} {
		file, err := os.ReadFile(name + ".vps")
		must(t, err)
		s := open(t, file)
		must(t, s.Verify(t.Context()))
		golden(t, name+".text", func(w io.Writer) error { return Print(w, s, PrintOptions{Full: true}) })
		golden(t, name+".json", func(w io.Writer) error { return PrintJSON(w, s) })
	}
}

func golden(t *testing.T, path string, print func(io.Writer) error) {
	var out bytes.Buffer
	must(t, print(&out))
	if *update {
		must(t, os.WriteFile(path, out.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("%s: %s", path, diff)
	}
}

func TestPrintQuotes(t *testing.T) {
	const escape = "\x1b]0;owned\x07"
	var out bytes.Buffer
	h := testHeader()
	h.Instance, h.Kernel, h.Arch, h.CpuFeatures = escape, escape, escape, []string{escape}
	w, err := NewWriter(&out, h, Plain)
	must(t, err)
	must(t, w.Put(1, &Process{Pid: 1, Cwd: &FileRef{Path: escape}, Pending: [][]byte{[]byte(escape)}}))
	must(t, w.Put(1, &Thread{Comm: escape}))
	must(t, w.Put(1, &Instance{Sysctl: map[string]string{escape: escape}}))
	must(t, w.Close())
	s := open(t, out.Bytes())
	for name, print := range map[string]func(io.Writer) error{
		"text": func(w io.Writer) error { return Print(w, s, PrintOptions{Full: true}) },
		"json": func(w io.Writer) error { return PrintJSON(w, s) },
	} {
		var shown bytes.Buffer
		must(t, print(&shown))
		if i := strings.IndexAny(shown.String(), "\x1b\x07"); i >= 0 {
			t.Errorf("%s: byte %d would reach the terminal", name, i)
		}
		if !strings.Contains(shown.String(), "owned") {
			t.Errorf("%s: the name is not shown", name)
		}
	}
}

func TestPrintTree(t *testing.T) {
	s := open(t, write(t, Plain, func(w *Writer) {
		for _, p := range []struct {
			pid, parent uint32
			name        string
		}{{1, 0, "init"}, {5, 1, "sh"}, {9, 1, "getty"}, {12, 5, "sleep"}, {20, 0, "exec"}, {30, 31, "circle"}, {31, 30, "circle"}} {
			must(t, w.Put(uint64(p.pid), &Process{Pid: p.pid, Ppid: p.parent, Threads: []uint32{p.pid}}))
			must(t, w.Put(uint64(p.pid), &Thread{Tid: p.pid, Comm: p.name}))
		}
	}))
	var out bytes.Buffer
	must(t, Print(&out, s, PrintOptions{}))
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
	s := open(t, write(t, Plain, func(w *Writer) {
		for pid := uint32(1); pid < 50_000; pid++ {
			must(t, w.Put(uint64(pid), &Process{Pid: pid, Ppid: pid - 1}))
		}
	}))
	must(t, Print(io.Discard, s, PrintOptions{}))
}

func TestPrintShortens(t *testing.T) {
	s := open(t, write(t, Plain, func(w *Writer) {
		must(t, w.Put(1, &Thread{Xstate: make([]byte, 2696)}))
		must(t, w.Put(1, &FdTable{Fds: make([]*Fd, 100)}))
	}))
	var short, long bytes.Buffer
	must(t, Print(&short, s, PrintOptions{}))
	must(t, Print(&long, s, PrintOptions{Full: true}))
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
	must(t, PrintJSON(&out, open(t, sample(t, Zstd))))
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
	must(t, json.Unmarshal(out.Bytes(), &got))
	if got.Schema != JSONSchema || got.Format != "1.0" || got.Header.Instance != "web" || len(got.Records) != 7 || len(got.Frames) != 4 {
		t.Errorf("%+v", got)
	}
	if p := got.Pages[0]; p.Type != "MM" || p.ID != "1" || p.Stored != 1 || p.Zero != 2 {
		t.Errorf("%+v", p)
	}
	if p := got.Pages[1]; p.ID != "7" || p.Shared != 1 || p.Stored != 0 {
		t.Errorf("%+v", p)
	}
}
