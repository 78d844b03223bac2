package pager

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
)

const mib = 1 << 20

// mapped maps size bytes here, and returns them with their address.
func mapped(t *testing.T, size int) ([]byte, uint64) {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem, uint64(uintptr(unsafe.Pointer(&mem[0])))
}

func TestScannerFindsTouchedPages(t *testing.T) {
	mem, at := mapped(t, mib)
	_ = mem[5*pageSize] // a read maps the zero page, which is not the process's own
	for _, page := range []int{0, 1, 7} {
		mem[page*pageSize] = 1
	}
	want := []dump.Range{{Start: at, End: at + 2*pageSize}, {Start: at + 7*pageSize, End: at + 8*pageSize}}
	for _, slow := range []bool{false, true} {
		s, err := NewScanner(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.slow = slow
		got, err := s.Private(nil, at, at+mib)
		if err != nil {
			t.Fatal(err)
		}
		if slow && len(got) == 3 {
			got = append(got[:1], got[2]) // it cannot tell the zero page
		}
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("slow %v: %v, want %v", slow, got, want)
		}
	}
}

func TestDumpAndFill(t *testing.T) {
	source, from := mapped(t, mib)
	for i := range 2 * pageSize {
		source[3*pageSize+i] = byte(i)
	}
	source[9*pageSize] = 9
	source[20*pageSize] = 1
	source[20*pageSize] = 0 // present and zero
	path := filepath.Join(t.TempDir(), "x.vps")
	w, err := dump.Create(path, &dump.Header{Arch: "x86_64", PageSize: pageSize}, dump.Plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(1, &dump.Mm{Id: 1}); err != nil {
		t.Fatal(err)
	}
	c := NewCopy(w.Writer)
	defer c.Close()
	space := &Space{ID: 1, PID: os.Getpid(), Mappings: []Mapping{{Range: dump.Range{Start: from, End: from + mib}, Anonymous: true}}}
	if err := c.Freeze(t.Context(), []*Space{space}); err != nil {
		t.Fatal(err)
	}
	if err := c.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(source)
	clear(source)
	source[20*pageSize] = 0xff // as a file's page below would show
	f, err := dump.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	backed := []dump.Range{{Start: from + 20*pageSize, End: from + 21*pageSize}}
	if err := Fill(t.Context(), f.Snapshot, 1, os.Getpid(), backed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(source, want) {
		t.Error("memory is not as it was")
	}
}
