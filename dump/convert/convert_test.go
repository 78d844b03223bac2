package convert_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"vps/dump"
	"vps/dump/convert"
	"vps/internal/dumptest"
)

func must(t testing.TB, err error) {
	t.Helper()
	dumptest.Must(t, err)
}

// convertBytes converts a snapshot in memory and opens the copy.
func convertBytes(t testing.TB, s *dump.Snapshot, o convert.Options) (*dump.Snapshot, []byte) {
	t.Helper()
	var out bytes.Buffer
	must(t, convert.Snapshot(t.Context(), &out, s, o))
	copied := dumptest.Open(t, out.Bytes())
	must(t, copied.Verify(t.Context()))
	return copied, out.Bytes()
}

// memory is all pages of a snapshot, and which of them are one page: a number stands for it.
type memory struct {
	content map[place]string
	same    map[place]int
}

type place struct {
	dump.Key
	Address uint64
}

func readMemory(t testing.TB, s *dump.Snapshot) memory {
	t.Helper()
	m := memory{make(map[place]string), make(map[place]int)}
	numbers := make(map[[2]int]int)
	for _, k := range s.Keys() {
		for _, e := range s.Extents(k) {
			for i := range int(e.Len() / dumptest.PageSize) {
				at := place{k, e.Start + uint64(i)*dumptest.PageSize}
				page := make([]byte, dumptest.PageSize)
				must(t, s.ReadPages(k, at.Address, page))
				m.content[at] = string(page)
				if e.Frame == dump.Zero || m.content[at] == string(make([]byte, dumptest.PageSize)) {
					continue
				}
				stored := [2]int{e.Frame, e.Index + i}
				if _, ok := numbers[stored]; !ok {
					numbers[stored] = len(numbers) + 1
				}
				m.same[at] = numbers[stored]
			}
		}
	}
	return m
}

// checkCopy compares a copy with its source: records, pages, and which pages are the same ones. Nothing is stored twice.
func checkCopy(t testing.TB, s, copied *dump.Snapshot) {
	t.Helper()
	if diff := cmp.Diff(s.Keys(), copied.Keys()); diff != "" {
		t.Fatal("records:", diff)
	}
	for _, k := range s.Keys() {
		if diff := cmp.Diff(message(t, s, k), message(t, copied, k), protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", k, diff)
		}
	}
	was, is := readMemory(t, s), readMemory(t, copied)
	if !maps.Equal(was.content, is.content) {
		t.Errorf("%d pages became %d, or others", len(was.content), len(is.content))
	}
	if !maps.Equal(sharing(was), sharing(is)) {
		t.Errorf("sharing differs: %v became %v", was.same, is.same)
	}
	distinct := make(map[int]bool)
	for _, n := range was.same {
		distinct[n] = true
	}
	stored := 0
	for _, f := range copied.Frames() {
		stored += f.Count
	}
	if stored != len(distinct) {
		t.Errorf("%d different pages are stored as %d", len(distinct), stored)
	}
}

// sharing maps each page to the first one that is the same.
func sharing(m memory) map[place]place {
	first := make(map[int]place)
	for at, n := range m.same {
		if f, ok := first[n]; !ok || before(at, f) {
			first[n] = at
		}
	}
	out := make(map[place]place)
	for at, n := range m.same {
		out[at] = first[n]
	}
	return out
}

func before(a, b place) bool {
	if a.Type != b.Type {
		return a.Type < b.Type
	}
	return a.ID < b.ID || a.ID == b.ID && a.Address < b.Address
}

func message(t testing.TB, s *dump.Snapshot, k dump.Key) proto.Message {
	t.Helper()
	rec, err := s.Record(k)
	must(t, err)
	m, err := rec.Message()
	must(t, err)
	return m
}

func TestCopyIsTheSame(t *testing.T) {
	for _, from := range []dump.Codec{dump.Plain, dump.Zstd} {
		for _, to := range []dump.Codec{dump.Plain, dump.Zstd} {
			s := dumptest.Open(t, dumptest.Sample(t, from))
			copied, _ := convertBytes(t, s, convert.Options{Codec: to})
			checkCopy(t, s, copied)
			for _, f := range copied.Frames() {
				if f.Kind == dump.Pages && f.Codec != to {
					t.Errorf("%s is stored as %s", f, f.Codec)
				}
			}
			if diff := cmp.Diff(s.Header(), copied.Header(), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// TestRounds flattens snapshots of many rounds, in which pages are replaced, withdrawn and shared at random.
func TestRounds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		script := make([]byte, 50+rnd.IntN(1000))
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		s := dumptest.Open(t, dumptest.Script(t, script))
		copied, first := convertBytes(t, s, convert.Options{Codec: dump.Plain})
		checkCopy(t, s, copied)
		if _, second := convertBytes(t, copied, convert.Options{Codec: dump.Plain}); len(second) > len(first) {
			t.Errorf("a copy of the copy grew from %d to %d bytes", len(first), len(second))
		}
	}
}

// TestFlattened has the same pages sent again and again, in frames of one page: one frame is left.
func TestFlattened(t *testing.T) {
	const rounds, size = 10, 64
	s := dumptest.Open(t, dumptest.Write(t, dump.Plain, func(w *dump.Writer) {
		must(t, w.Put(1, &dump.Mm{Id: 1}))
		for round := range rounds {
			for p := range uint64(size) {
				must(t, w.WritePages(dumptest.MM(1), []dump.Range{dumptest.Pages(p, 1)}, dumptest.Constant(byte(round+1))))
			}
		}
	}))
	copied, file := convertBytes(t, s, convert.Options{})
	checkCopy(t, s, copied)
	if n := len(copied.Frames()); n != 1 {
		t.Errorf("%d frames are left", n)
	}
	if most := int64(size+3) * dumptest.PageSize; int64(len(file)) > most {
		t.Errorf("%d bytes, of %d, are left", len(file), s.Size())
	}
}

func TestEdit(t *testing.T) {
	s := dumptest.Open(t, dumptest.Sample(t, dump.Plain))
	copied, _ := convertBytes(t, s, convert.Options{Edit: func(m proto.Message) error {
		switch m := m.(type) {
		case *dump.Header:
			m.Instance = "copy"
		case *dump.Instance:
			m.Name = "copy"
		}
		return nil
	}})
	info, err := dump.Get[*dump.Instance](copied, 1)
	must(t, err)
	if copied.Header().Instance != "copy" || info.Name != "copy" || info.Hostname != "web.example" || s.Header().Instance != "web" {
		t.Errorf("%v, %v; the source is of %s", copied.Header(), info, s.Header().Instance)
	}
	refused := errors.New("not like this")
	err = convert.Snapshot(t.Context(), new(bytes.Buffer), s, convert.Options{Edit: func(m proto.Message) error {
		if _, ok := m.(*dump.Thread); ok {
			return refused
		}
		return nil
	}})
	if !errors.Is(err, refused) || !strings.Contains(err.Error(), "record THREAD 1: ") {
		t.Error(err)
	}
}

func TestWithoutPages(t *testing.T) {
	s := dumptest.Open(t, dumptest.Sample(t, dump.Plain))
	copied, _ := convertBytes(t, s, convert.Options{WithoutPages: true})
	if n := len(copied.Frames()); n != 0 {
		t.Errorf("%d frames are left", n)
	}
	if diff := cmp.Diff(s.Keys(), copied.Keys()); diff != "" {
		t.Error(diff)
	}
	if err := s.Header().CheckHost(dumptest.Header()); err != nil {
		t.Error(err)
	}
	again, _ := convertBytes(t, copied, convert.Options{})
	for _, report := range []*dump.Snapshot{copied, again} {
		if err := report.Header().CheckHost(dumptest.Header()); !errors.Is(err, dump.ErrNoPages) {
			t.Error("it would be restored:", err)
		}
	}
}

func TestRefused(t *testing.T) {
	file, err := os.ReadFile("../testdata/format-1.3.vps")
	must(t, err)
	err = convert.Snapshot(t.Context(), new(bytes.Buffer), dumptest.Open(t, file), convert.Options{})
	if !errors.Is(err, dump.ErrUnsupported) || !strings.Contains(err.Error(), "cannot read") {
		t.Error("newer:", err)
	}

	file = dumptest.Sample(t, dump.Plain)
	at := bytes.Index(file, bytes.Repeat([]byte("5"), dumptest.PageSize))
	file[at+100] ^= 1
	var broken *dump.FormatError
	err = convert.Snapshot(t.Context(), new(bytes.Buffer), dumptest.Open(t, file), convert.Options{})
	if !errors.As(err, &broken) || broken.Offset != int64(at) || !errors.Is(err, dump.ErrCorrupt) {
		t.Error("a page that is not as it was:", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	err = convert.Snapshot(ctx, &out, dumptest.Open(t, dumptest.Sample(t, dump.Plain)), convert.Options{})
	if !errors.Is(err, context.Canceled) {
		t.Error("cancelled:", err)
	}
	if _, err := dump.Open(bytes.NewReader(out.Bytes()), int64(out.Len())); err == nil {
		t.Error("what a cancelled conversion wrote is a snapshot")
	}
}

func TestProgress(t *testing.T) {
	var last, total uint64
	s := dumptest.Open(t, dumptest.Sample(t, dump.Plain))
	convertBytes(t, s, convert.Options{Progress: func(done, of uint64) {
		if done < last || done > of {
			t.Errorf("%d of %d after %d", done, of, last)
		}
		last, total = done, of
	}})
	if last != total || total == 0 {
		t.Errorf("it ended at %d of %d", last, total)
	}
}

// FuzzConvert converts files that are broken: an error tells where and why, or all was right.
func FuzzConvert(f *testing.F) {
	for _, codec := range []dump.Codec{dump.Plain, dump.Zstd} {
		file := dumptest.Sample(f, codec)
		f.Add(file)
		f.Add(file[:len(file)/2])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := dump.Open(bytes.NewReader(file), int64(len(file)))
		var out bytes.Buffer
		if err == nil {
			err = convert.Snapshot(t.Context(), &out, s, convert.Options{})
		}
		if err == nil {
			checkCopy(t, s, dumptest.Open(t, out.Bytes()))
			return
		}
		var broken *dump.FormatError
		if !errors.As(err, &broken) || broken.Class == nil || broken.What == "" {
			t.Error("no place and reason:", err)
		}
	})
}

// FuzzConvertForged converts files that are whole, whatever they say.
func FuzzConvertForged(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 2, 3, 4, 5, 4, 1, 0, 3, 2, 1, 7, 5, 1})
	f.Add([]byte{1, 1, 4, 200, 2, 15, 3, 15, 1, 3, 6, 5, 4, 3, 4, 0, 4, 10, 3, 60, 9, 2, 2, 0, 5, 1, 7})
	f.Fuzz(func(t *testing.T, script []byte) {
		s := dumptest.Open(t, dumptest.Script(t, script))
		copied, _ := convertBytes(t, s, convert.Options{Codec: dump.Zstd})
		checkCopy(t, s, copied)
	})
}

// TestTangledSharing has a small file of which a large one would come: many objects have a range of pages, each of which
// has another owner, since other ranges that begin before overlap it.
func TestTangledSharing(t *testing.T) {
	const half, objects = 500, 400
	s := dumptest.Open(t, dumptest.Write(t, dump.Zstd, func(w *dump.Writer) {
		share := func(id, first, n uint64) {
			must(t, w.Put(id, &dump.Mm{Id: id}))
			must(t, w.WriteShared(dumptest.MM(id), []dump.Range{dumptest.Pages(first, n)}, dumptest.MM(1), 0))
		}
		must(t, w.Put(1, &dump.Mm{Id: 1}))
		must(t, w.WritePages(dumptest.MM(1), []dump.Range{dumptest.Pages(0, 2*half)}, dumptest.Constant(1)))
		for j := range uint64(half) {
			share(2+j, j, half)
		}
		for id := uint64(1000); id < 1000+objects; id++ {
			share(id, half, half)
		}
		must(t, w.Delete(dumptest.MM(1)))
	}))
	var out bytes.Buffer
	var format *dump.FormatError
	err := convert.Snapshot(t.Context(), &out, s, convert.Options{})
	if !errors.Is(err, dump.ErrLimit) || !errors.As(err, &format) || !strings.Contains(err.Error(), "frame 0 of MM 1") {
		t.Errorf("%d bytes became %d: %v", s.Size(), out.Len(), err)
	}
}
