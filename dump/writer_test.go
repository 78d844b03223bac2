package dump

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// full fails after some bytes, as a full disk does.
type full struct{ room int }

var errFull = errors.New("no space left on device")

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestFailureToWriteIsFinal(t *testing.T) {
	for _, room := range []int{0, 100_000, 9 << 20} {
		w, err := NewWriter(&full{room}, testHeader(), Plain)
		must(t, err)
		must(t, w.Put(1, &Mm{Id: 1}))
		for range 10 {
			if err = w.WritePages(mm(1), []Range{pages(0, 2000)}, constant(1)); err != nil {
				break
			}
		}
		for what, err := range map[string]error{"WritePages": err, "Flush": w.Flush(), "Put": w.Put(2, &Mm{}), "Close": w.Close()} {
			if !errors.Is(err, errFull) {
				t.Errorf("room for %d: %s: %v", room, what, err)
			}
		}
	}
}

func TestFailureToFillIsNot(t *testing.T) {
	gone := errors.New("no such process")
	file := write(t, Plain, func(w *Writer) {
		must(t, w.Put(1, &Mm{Id: 1}))
		for range 10 { // more often than there are buffers
			err := w.WritePages(mm(1), []Range{pages(0, 1)}, func([]byte, []Range) error { return gone })
			if !errors.Is(err, gone) {
				t.Fatal(err)
			}
		}
		must(t, w.WritePages(mm(1), []Range{pages(7, 1)}, constant(1)))
	})
	if got := open(t, file).Extents(mm(1)); len(got) != 1 || got[0].Range != pages(7, 1) {
		t.Error(got)
	}
}

func TestWriterRefuses(t *testing.T) {
	tests := []struct {
		name  string
		write func(w *Writer) error
		class error
		text  string
	}{
		{"a message that is no record", func(w *Writer) error { return w.Put(1, &Fd{}) }, ErrUnsupported, "write record 1 of *dump.Fd"},
		{"id 0", func(w *Writer) error { return w.Put(0, &Mm{}) }, ErrUnsupported, "not a record"},
		{"a tombstone of nothing", func(w *Writer) error { return w.Delete(Key{}) }, ErrUnsupported, "not a record"},
		{"a large record", func(w *Writer) error { return w.Put(1, &Pipe{Packets: [][]byte{make([]byte, MaxPayload)}}) }, ErrLimit, "write record PIPE 1: 16777221 bytes"},
		{"pages of nothing", func(w *Writer) error { return w.WritePages(mm(9), []Range{pages(0, 1)}, constant(1)) }, ErrOrder, "frame 0 of MM 9"},
		{"zeros of nothing", func(w *Writer) error { return w.WriteZeros(mm(9), []Range{pages(0, 1)}) }, ErrOrder, "frame 0 of MM 9"},
		{"pages shared with nothing", func(w *Writer) error { return w.WriteShared(mm(1), []Range{pages(0, 1)}, mm(9), 0) }, ErrNotFound, "write pages of MM 1: those of MM 9 at 0x0"},
		{"unaligned pages", func(w *Writer) error { return w.WritePages(mm(1), []Range{{Start: 1, End: 2}}, constant(1)) }, nil, "0x1-0x2 is not aligned"},
		{"no pages", func(w *Writer) error { return w.WriteZeros(mm(1), []Range{{}}) }, nil, "not ascending"},
		{"disorder", func(w *Writer) error { return w.WriteZeros(mm(1), []Range{pages(3, 1), pages(3, 1)}) }, nil, "out of order"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, err := NewWriter(io.Discard, testHeader(), Plain)
			must(t, err)
			must(t, w.Put(1, &Mm{Id: 1}))
			err = test.write(w)
			if err == nil { // found in its turn
				err = w.Close()
			} else {
				w.Abort()
			}
			if err == nil || !strings.Contains(err.Error(), test.text) || test.class != nil && !errors.Is(err, test.class) {
				t.Error(err)
			}
		})
	}
	h := testHeader()
	h.PageSize = 5000
	if _, err := NewWriter(io.Discard, h, Plain); err == nil {
		t.Error("a page size of 5000 was taken")
	}
	if _, err := NewWriter(io.Discard, testHeader(), Codec(9)); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

func TestClosedWriter(t *testing.T) {
	w, err := NewWriter(io.Discard, testHeader(), Plain)
	must(t, err)
	must(t, w.Close())
	for what, err := range map[string]error{"Put": w.Put(1, &Mm{}), "Close": w.Close(), "Flush": w.Flush()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.Abort()
}

// TestParallelWriters has several goroutines write the pages of their own object.
func TestParallelWriters(t *testing.T) {
	file := write(t, Zstd, func(w *Writer) {
		var group sync.WaitGroup
		for id := uint64(1); id <= 4; id++ {
			group.Go(func() {
				if err := w.Put(id, &Mm{Id: id}); err != nil {
					t.Error(err)
				}
				for i := range uint64(20) {
					if err := w.WritePages(mm(id), []Range{pages(i*100, 100)}, constant(byte(id))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
	})
	s := open(t, file)
	for id := uint64(1); id <= 4; id++ {
		got := readRuns(t, s, mm(id))
		for p := range uint64(2000) {
			if got[p] != byte(id) {
				t.Fatalf("page %d of MM %d is %d", p, id, got[p])
			}
		}
	}
}

// TestFlush expects what was written to be at the reader before the snapshot is finished.
func TestFlush(t *testing.T) {
	r, out := io.Pipe()
	w, err := NewWriter(out, testHeader(), Plain)
	must(t, err)
	must(t, w.Put(12, &Process{Pid: 12}))
	flushed := make(chan error)
	go func() { flushed <- w.Flush() }()
	reader, err := NewReader(r)
	must(t, err)
	u, err := reader.Next()
	must(t, err)
	if rec := u.(*Record); rec.Key != (Key{Type_TYPE_PROCESS, 12}) {
		t.Error(rec.Key)
	}
	must(t, <-flushed)
	must(t, out.Close())
	if _, err := reader.Next(); !errors.Is(err, ErrTruncated) {
		t.Error("the end of a stream without a trailer:", err)
	}
	w.Abort()
}

func TestSharedMemory(t *testing.T) {
	shm := Key{Type_TYPE_MEMORY, 3}
	file := write(t, Plain, func(w *Writer) {
		must(t, w.Put(3, &Memory{Id: 3, Size: 2 * pageSize}))
		must(t, w.WritePages(shm, []Range{pages(0, 2)}, constant(8)))
	})
	buf := make([]byte, 2*pageSize)
	must(t, open(t, file).ReadPages(shm, 0, buf))
	if !bytes.Equal(buf, bytes.Repeat([]byte{8}, len(buf))) {
		t.Error("content differs")
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.vps")
	must(t, os.WriteFile(path, []byte("an older one"), 0o644))

	abandoned, err := Create(path, testHeader(), Plain)
	must(t, err)
	must(t, abandoned.Put(1, &Mm{Id: 1}))
	abandoned.Abort()
	abandoned.Abort()
	if got := names(t, dir); len(got) != 1 {
		t.Error("Abort left", got)
	}
	if err := abandoned.Commit(); !errors.Is(err, ErrClosed) {
		t.Error("Commit after Abort:", err)
	}

	w, err := Create(path, testHeader(), Plain)
	must(t, err)
	must(t, w.Put(1, &Mm{Id: 1}))
	if b, _ := os.ReadFile(path); string(b) != "an older one" {
		t.Error("the name shows an unfinished snapshot")
	}
	must(t, w.Commit())
	w.Abort() // as a deferred one does
	if got := names(t, dir); len(got) != 1 {
		t.Error("Commit left", got)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != 0o600 {
		t.Error("mode", info.Mode())
	}
	s, err := OpenFile(path)
	must(t, err)
	must(t, s.Verify(t.Context()))
	must(t, s.Close())
}

func TestFileThatCannotBeWritten(t *testing.T) {
	if _, err := Create(filepath.Join(t.TempDir(), "none", "x"), testHeader(), Plain); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	dir := t.TempDir()
	w, err := Create(filepath.Join(dir, "x"), testHeader(), Plain)
	must(t, err)
	must(t, w.WriteZeros(mm(9), []Range{pages(0, 1)}))
	if err := w.Commit(); !errors.Is(err, ErrOrder) {
		t.Error(err)
	}
	if got := names(t, dir); len(got) != 0 {
		t.Error("a failed Commit left", got)
	}
}

func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenFile(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := OpenFile(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	file := sample(t, Zstd)
	s, err := Spool(bytes.NewReader(file), dir)
	must(t, err)
	must(t, s.Verify(t.Context()))
	if got := names(t, dir); len(got) != 0 {
		t.Error("Spool shows", got)
	}
	must(t, s.Close())

	rnd := rand.NewChaCha8([32]byte{})
	for name, stream := range map[string]io.Reader{
		"truncated": bytes.NewReader(file[:len(file)-1]),
		"longer":    io.MultiReader(bytes.NewReader(file), strings.NewReader("x")),
		"endless":   rnd,
	} {
		if _, err := Spool(stream, dir); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := names(t, dir); len(got) != 0 {
		t.Error("a failed Spool left", got)
	}
}
