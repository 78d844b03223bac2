package pager

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	for _, way := range []string{"write", "copy", "huge"} {
		t.Run(way, func(t *testing.T) { testDumpAndFill(t, way) })
	}
}

func testDumpAndFill(t *testing.T, way string) {
	const file = 20 * pageSize // what lies above is anonymous
	source, from := mapped(t, 8*mib)
	for i := range 2 * pageSize {
		source[3*pageSize+i] = byte(i)
	}
	source[9*pageSize] = 9
	source[file-pageSize] = 1
	source[file-pageSize] = 0 // present and zero
	for i := file; i < len(source); i++ {
		source[i] = byte(i/pageSize | 1)
	}
	clear(source[30*pageSize : 31*pageSize])
	unix.Madvise(source[40*pageSize:50*pageSize], unix.MADV_DONTNEED)
	s := dumped(t, source, from)
	extents := s.Extents(dump.Key{Type: dump.Type_TYPE_MM, ID: 1})
	want := bytes.Clone(source)
	unix.Madvise(source, unix.MADV_DONTNEED)
	source[file-pageSize] = 0xff // as a file's page below would show
	m := &Memory{Name: "self", PID: os.Getpid(), Extents: extents, Fault: -1, Backed: []dump.Range{{Start: from, End: from + file}}}
	all := dump.Range{Start: from + file, End: from + 8*mib}
	switch way {
	case "copy":
		m.Fault, m.Anonymous = userfault(t), []dump.Range{all}
	case "huge":
		unix.Madvise(source[file:], unix.MADV_HUGEPAGE)
		m.Fault, m.Anonymous, m.Huge = userfault(t), []dump.Range{all}, []dump.Range{all}
	}
	if err := Fill(t.Context(), s.Snapshot, []*Memory{m}); err != nil {
		t.Fatal(err)
	}
	if m.Fault >= 0 {
		unix.Close(m.Fault) // what is missing is zero from now on
	}
	if resident, huge := resident(t, source), smaps(t, "AnonHugePages:", from); resident > 8*mib-10*pageSize {
		t.Errorf("%d bytes are resident", resident)
	} else if (huge > 0) != (way == "huge") {
		t.Errorf("%d bytes of huge pages", huge)
	}
	if !bytes.Equal(source, want) {
		t.Error("memory is not as it was")
	}
}

// dumped returns a snapshot of memory that is ours.
func dumped(t *testing.T, source []byte, from uint64) *dump.SnapshotFile {
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
	all := dump.Range{Start: from, End: from + uint64(len(source))}
	space := &Space{ID: 1, PID: os.Getpid(), Mappings: []Mapping{{Range: all, Anonymous: true}}}
	if _, err := c.Look(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	if err := c.Freeze(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	f, err := dump.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// userfault opens a userfaultfd of ourselves.
func userfault(t *testing.T) int {
	const userModeOnly = 1 // UFFD_USER_MODE_ONLY
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|userModeOnly, 0, 0)
	if errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	return int(fd)
}

// resident tells how many bytes of memory are there, mincore(2).
func resident(t *testing.T, mem []byte) int {
	t.Helper()
	there := make([]byte, len(mem)/pageSize)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&there[0]))); errno != 0 {
		t.Fatalf("mincore: %v", errno)
	}
	return bytes.Count(there, []byte{1}) * pageSize
}

// smaps sums up a field of /proc/self/smaps, in bytes, for the mappings from an address on, up to a gap.
func smaps(t *testing.T, field string, from uint64) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	sum, in := 0, false
	for line := range strings.Lines(string(data)) {
		var start, end uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &start, &end); n == 2 {
			if in = start == from; in {
				from = end
			}
		}
		var kib int
		if n, _ := fmt.Sscanf(line, field+" %d kB", &kib); in && n == 1 {
			sum += kib << 10
		}
	}
	return sum
}

func TestPieces(t *testing.T) {
	extent := func(start, end uint64, frame, index int) dump.Extent {
		return dump.Extent{Range: dump.Range{Start: start * pageSize, End: end * pageSize}, Frame: frame, Index: index}
	}
	ranges := []dump.Range{{Start: 0, End: 2 * pageSize}, {Start: 4 * pageSize, End: 5 * pageSize}, {Start: 8 * pageSize, End: 12 * pageSize}}
	in, out := Divide([]dump.Extent{extent(1, 9, 3, 10), extent(10, 11, dump.Zero, 0), extent(13, 14, 4, 0)}, ranges)
	wantIn := []dump.Extent{extent(1, 2, 3, 10), extent(4, 5, 3, 13), extent(8, 9, 3, 17), extent(10, 11, dump.Zero, 0)}
	wantOut := []dump.Extent{extent(2, 4, 3, 11), extent(5, 8, 3, 14), extent(13, 14, 4, 0)}
	if !slices.Equal(in, wantIn) || !slices.Equal(out, wantOut) {
		t.Errorf("in %v\nout %v", in, out)
	}
	const huge = hugeSize / pageSize
	areas := hugeAreas([]dump.Range{{Start: 0, End: 3 * hugeSize}, {Start: 5*hugeSize + pageSize, End: 9 * hugeSize}},
		[]dump.Extent{extent(1, huge, 0, 0), extent(huge, huge+3, dump.Zero, 0), extent(huge+3, 2*huge+5, 0, 7), extent(5*huge, 8*huge, 1, 0)})
	if want := []dump.Range{{Start: hugeSize, End: 2 * hugeSize}, {Start: 6 * hugeSize, End: 8 * hugeSize}}; !slices.Equal(areas, want) {
		t.Errorf("areas %v, want %v", areas, want)
	}
}
