package dump

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

const pageSize = 4096

func testHeader() *Header {
	return &Header{Arch: "x86_64", PageSize: pageSize, Kernel: "6.18.0", CpuFeatures: []string{"fpu", "avx2"},
		Created: 1795464000e9, Instance: "web"}
}

// write makes a snapshot in memory.
func write(t testing.TB, codec Codec, content func(w *Writer)) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, testHeader(), codec)
	must(t, err)
	content(w)
	must(t, w.Close())
	return out.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, file []byte) *Snapshot {
	t.Helper()
	s, err := Open(bytes.NewReader(file), int64(len(file)))
	must(t, err)
	return s
}

func mm(id uint64) Key { return Key{Type_TYPE_MM, id} }

// pages returns a range of n pages from page first on.
func pages(first, n uint64) Range { return Range{Start: first * pageSize, End: (first + n) * pageSize} }

// fillWith fills each page with the byte that it is given for the page's number.
func fillWith(content func(page uint64) byte) func([]byte, []Range) error {
	return func(buf []byte, ranges []Range) error {
		for _, r := range ranges {
			for a := r.Start; a < r.End; a += pageSize {
				page := buf[:pageSize]
				buf = buf[pageSize:]
				page[0] = content(a / pageSize)
				for n := 1; n < pageSize; n *= 2 {
					copy(page[n:], page[:n])
				}
			}
		}
		if len(buf) != 0 {
			return errors.New("buffer and ranges differ")
		}
		return nil
	}
}

func constant(c byte) func([]byte, []Range) error {
	return fillWith(func(uint64) byte { return c })
}

// sample is a small snapshot with everything in it.
func sample(t testing.TB, codec Codec) []byte {
	return write(t, codec, func(w *Writer) {
		must(t, w.Put(1, &Instance{Name: "web", Hostname: "web.example"}))
		must(t, w.Put(1, &Process{Pid: 1, Mm: 1, Threads: []uint32{1}}))
		must(t, w.Put(1, &Thread{Tid: 1, Pid: 1, Comm: "init"}))
		must(t, w.Put(7, &Process{Pid: 7, Ppid: 1, Mm: 7, Threads: []uint32{7}}))
		must(t, w.Put(7, &Thread{Tid: 7, Pid: 7, Comm: "sh"}))
		must(t, w.Put(9, &Process{Pid: 9, Ppid: 1}))
		must(t, w.Put(1, &Mm{Id: 1, Mappings: []*Mapping{{Start: 0x1000, End: 0x9000}}}))
		must(t, w.Put(7, &Mm{Id: 7}))
		must(t, w.WritePages(mm(1), []Range{pages(1, 2), pages(4, 1)}, fillWith(func(p uint64) byte { return byte(p % 4) })))
		must(t, w.WriteShared(mm(7), []Range{pages(1, 1)}, mm(1), 0))
		must(t, w.WriteZeros(mm(1), []Range{pages(2, 1)}))
		must(t, w.Put(7, &Thread{Tid: 7, Pid: 7, Comm: "bash"}))
		must(t, w.Delete(Key{Type_TYPE_PROCESS, 9}))
	})
}

func TestRoundTrip(t *testing.T) {
	for _, codec := range []Codec{Plain, Zstd} {
		t.Run(codec.String(), func(t *testing.T) {
			s := open(t, sample(t, codec))
			must(t, s.Verify(t.Context()))
			if diff := cmp.Diff(testHeader(), s.Header(), protocmp.Transform()); diff != "" {
				t.Error("header:", diff)
			}
			if got := s.Version(); got != (Version{1, 0}) {
				t.Error("version", got)
			}
			if diff := cmp.Diff([]uint64{1, 7}, s.IDs(Type_TYPE_PROCESS)); diff != "" {
				t.Error("processes, one of which was withdrawn:", diff)
			}
			thread, err := Get[*Thread](s, 7)
			must(t, err)
			if diff := cmp.Diff(&Thread{Tid: 7, Pid: 7, Comm: "bash"}, thread, protocmp.Transform()); diff != "" {
				t.Error("replaced record:", diff)
			}
			if _, err := Get[*Process](s, 9); !errors.Is(err, ErrNotFound) {
				t.Error("withdrawn record:", err)
			}
			want := []Extent{
				{Range: pages(1, 1), Frame: 0, Index: 0},
				{Range: pages(2, 1), Frame: Zero},
				{Range: pages(4, 1), Frame: Zero}, // turned out to be zero
			}
			if diff := cmp.Diff(want, s.Extents(mm(1))); diff != "" {
				t.Error("pages of MM 1:", diff)
			}
			if diff := cmp.Diff(want[:1], s.Extents(mm(7))); diff != "" {
				t.Error("pages of MM 7 are not those that MM 1 had:", diff)
			}
		})
	}
}

func TestAll(t *testing.T) {
	s := open(t, sample(t, Plain))
	var got []uint32
	for p, err := range All[*Process](s) {
		must(t, err)
		got = append(got, p.Pid)
	}
	if diff := cmp.Diff([]uint32{1, 7}, got); diff != "" {
		t.Error(diff)
	}
}

// model is the memory that a snapshot should hold: the content of each page.
type model map[Key]map[uint64]byte

// TestRandomPages writes pages, zeros and sharings at random, and expects every way of reading to give what was last written.
func TestRandomPages(t *testing.T) {
	const objects, space = 4, 3000 // pages: several frames
	for seed := range uint64(10) {
		codec := Codec(seed % 2)
		rnd := rand.New(rand.NewPCG(seed, 0))
		want := make(model)
		file := write(t, codec, func(w *Writer) {
			for id := uint64(1); id <= objects; id++ {
				must(t, w.Put(id, &Mm{Id: id}))
				want[mm(id)] = make(map[uint64]byte)
			}
			for range 60 {
				k := mm(1 + rnd.Uint64N(objects))
				ranges := randomRanges(rnd, space)
				switch rnd.IntN(9) {
				case 0:
					must(t, w.WriteZeros(k, ranges))
					want.set(k, ranges, func(uint64) byte { return 0 })
				case 1, 2:
					from := mm(1 + rnd.Uint64N(objects))
					shift := rnd.Int64N(20) - 10
					ranges = want.stored(from, ranges, shift)
					must(t, w.WriteShared(k, ranges, from, shift*pageSize))
					source := make(map[uint64]byte)
					for p, c := range want[from] {
						source[p] = c
					}
					want.set(k, ranges, func(p uint64) byte { return source[p+uint64(shift)] })
				case 3:
					if rnd.IntN(4) == 0 {
						must(t, w.Delete(k))
						must(t, w.Put(k.ID, &Mm{Id: k.ID}))
						clear(want[k])
					}
				case 4:
					must(t, w.WithdrawPages(k, ranges))
					for _, r := range ranges {
						for p := r.Start / pageSize; p < r.End/pageSize; p++ {
							delete(want[k], p)
						}
					}
				default:
					salt := rnd.Uint64()
					content := func(p uint64) byte { return byte((p*7 + salt) % 5) }
					must(t, w.WritePages(k, ranges, fillWith(content)))
					want.set(k, ranges, content)
				}
			}
		})
		s := open(t, file)
		must(t, s.Verify(t.Context()))
		for k := range want {
			comparePages(t, "Pages", want[k], readRuns(t, s, k))
			comparePages(t, "ReadPages", want[k], readPages(t, s, k))
		}
		for k, got := range readStream(t, file) {
			comparePages(t, "stream", want[k], got)
		}
	}
}

func randomRanges(rnd *rand.Rand, space uint64) []Range {
	var ranges []Range
	for at := 10 + rnd.Uint64N(space); at < space && len(ranges) < 5; at += rnd.Uint64N(space/4) + 1 {
		n := 1 + rnd.Uint64N(space/3)
		ranges = append(ranges, pages(at, n))
		at += n
	}
	return ranges
}

func (m model) set(k Key, ranges []Range, content func(page uint64) byte) {
	for _, r := range ranges {
		for p := r.Start / pageSize; p < r.End/pageSize; p++ {
			m[k][p] = content(p)
		}
	}
}

// stored cuts ranges down to those pages for which the object k has one, shift pages further.
func (m model) stored(k Key, ranges []Range, shift int64) []Range {
	var out []Range
	for _, r := range ranges {
		for p := r.Start / pageSize; p < r.End/pageSize; p++ {
			if _, ok := m[k][p+uint64(shift)]; !ok {
				continue
			}
			if n := len(out); n > 0 && out[n-1].End == p*pageSize {
				out[n-1].End += pageSize
			} else {
				out = append(out, pages(p, 1))
			}
		}
	}
	return out
}

func readRuns(t *testing.T, s *Snapshot, k Key) map[uint64]byte {
	got := make(map[uint64]byte)
	for run, err := range s.Pages(k) {
		must(t, err)
		takeRun(t, got, run.Range, run.Data)
	}
	byFrame := make(map[uint64]byte)
	frames := make(map[int][]byte)
	for _, e := range s.Extents(k) {
		switch {
		case e.Frame == Zero:
			takeRun(t, byFrame, e.Range, nil)
			continue
		case frames[e.Frame] == nil:
			frames[e.Frame] = readFrame(t, s, e.Frame)
		}
		takeRun(t, byFrame, e.Range, frames[e.Frame][e.Index*pageSize:][:e.Len()])
	}
	if !maps.Equal(byFrame, got) {
		t.Errorf("%s: by frames %d pages, by runs %d, or others", k, len(byFrame), len(got))
	}
	return got
}

// readFrame reads a frame as a whole and as a stream, which must give the same.
func readFrame(t *testing.T, s *Snapshot, number int) []byte {
	r := s.NewFrameReader()
	whole, err := r.Read(number)
	must(t, err)
	var streamed []byte
	must(t, r.Stream(number, func(index int, pages []byte) error {
		if index != len(streamed)/pageSize {
			t.Errorf("frame %d: page %d after %d bytes", number, index, len(streamed))
		}
		streamed = append(streamed, pages...)
		return nil
	}))
	if !bytes.Equal(streamed, whole) {
		t.Errorf("frame %d: streamed %d bytes, read %d, or others", number, len(streamed), len(whole))
	}
	return whole
}

// takeRun enters a run of pages, each of one repeated byte; without data they are zero.
func takeRun(t *testing.T, got map[uint64]byte, r Range, data []byte) {
	t.Helper()
	if data != nil && uint64(len(data)) != r.Len() {
		t.Fatalf("%d bytes for %v", len(data), r)
	}
	for a := r.Start; a < r.End; a += pageSize {
		var c byte
		if data != nil {
			page := data[a-r.Start:][:pageSize]
			c = page[0]
			if !bytes.Equal(page[1:], page[:pageSize-1]) {
				t.Fatalf("page %#x is mixed", a)
			}
		}
		got[a/pageSize] = c
	}
}

func readPages(t *testing.T, s *Snapshot, k Key) map[uint64]byte {
	got := make(map[uint64]byte)
	extents := s.Extents(k)
	for len(extents) > 0 { // as far as there are pages without a gap, in one call
		r := extents[0].Range
		for extents = extents[1:]; len(extents) > 0 && extents[0].Start == r.End; extents = extents[1:] {
			r.End = extents[0].End
		}
		buf := make([]byte, r.Len())
		must(t, s.ReadPages(k, r.Start, buf))
		takeRun(t, got, r, buf)
	}
	return got
}

// readStream replays a stream, keeping every frame.
func readStream(t *testing.T, file []byte) model {
	r, err := NewReader(bytes.NewReader(file))
	must(t, err)
	got := make(model)
	var frames [][]byte
	for {
		u, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		must(t, err)
		switch u := u.(type) {
		case *Record:
			if u.Deleted || got[u.Key] == nil {
				got[u.Key] = make(map[uint64]byte)
			}
		case *PageFrame:
			frames = append(frames, bytes.Clone(u.Data))
			for _, e := range u.Extents {
				switch e.Frame {
				case Zero:
					takeRun(t, got[u.Key], e.Range, nil)
				case None:
					for a := e.Start; a < e.End; a += pageSize {
						delete(got[u.Key], a/pageSize)
					}
				default:
					takeRun(t, got[u.Key], e.Range, frames[e.Frame][e.Index*pageSize:][:e.Len()])
				}
			}
		}
	}
}

func comparePages(t *testing.T, how string, want, got map[uint64]byte) {
	t.Helper()
	for p, c := range want {
		if g, ok := got[p]; !ok || g != c {
			t.Fatalf("%s: page %d is %d (%t), not %d", how, p, g, ok, c)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d pages, not %d", how, len(got), len(want))
	}
}

func TestReadPagesThatAreNotThere(t *testing.T) {
	s := open(t, sample(t, Plain))
	for _, first := range []uint64{0, 3, 4, 100} { // before, in a gap, past the last, far off
		if err := s.ReadPages(mm(1), first*pageSize, make([]byte, 2*pageSize)); !errors.Is(err, ErrNotFound) {
			t.Errorf("page %d: %v", first, err)
		}
	}
	if err := s.ReadPages(mm(1), 12, make([]byte, pageSize)); err == nil {
		t.Error("unaligned read succeeded")
	}
}

func TestPosition(t *testing.T) {
	file := sample(t, Plain)
	s := open(t, file)
	e := s.Extents(mm(1))[0]
	off, ok := s.Position(e)
	if !ok || off%pageSize != 0 {
		t.Fatalf("pages are at %d (%t), not aligned", off, ok)
	}
	if !bytes.Equal(file[off:off+pageSize], bytes.Repeat([]byte{1}, pageSize)) {
		t.Error("the page is not there")
	}
	s = open(t, sample(t, Zstd))
	if _, ok := s.Position(s.Extents(mm(1))[0]); ok {
		t.Error("a compressed page has a position")
	}
}

func TestZeroPagesTakeNoSpace(t *testing.T) {
	file := write(t, Plain, func(w *Writer) {
		must(t, w.Put(1, &Mm{Id: 1}))
		must(t, w.WritePages(mm(1), []Range{pages(0, 4096)}, constant(0)))
	})
	if len(file) > 2000 {
		t.Errorf("16 MiB of zeros take %d bytes", len(file))
	}
}

func TestSharedPagesTakeNoSpace(t *testing.T) {
	file := write(t, Plain, func(w *Writer) {
		must(t, w.Put(1, &Mm{Id: 1}))
		must(t, w.WritePages(mm(1), []Range{pages(0, 10)}, constant(3)))
		for id := uint64(2); id < 12; id++ {
			must(t, w.Put(id, &Mm{Id: id}))
			must(t, w.WriteShared(mm(id), []Range{pages(0, 10)}, mm(id-1), 0))
		}
	})
	if len(file) > 15*pageSize {
		t.Errorf("10 pages shared by 11 processes take %d bytes", len(file))
	}
	s := open(t, file)
	if diff := cmp.Diff(s.Extents(mm(1)), s.Extents(mm(11))); diff != "" {
		t.Error("sharing does not show:", diff)
	}
}

func TestEveryTypeHasItsMessage(t *testing.T) {
	values := Type(0).Descriptor().Values()
	for i := range values.Len() {
		v := values.Get(i)
		if v.Number() == 0 {
			continue
		}
		m, ok := types().Message(v.Number())
		if !ok {
			t.Errorf("%s has no message", v.Name())
			continue
		}
		if got := TypeOf(m.New().Interface()); got != Type(v.Number()) {
			t.Errorf("%s is of type %s", m.Descriptor().Name(), got)
		}
	}
	if got := TypeOf(&Fd{}); got != Type_TYPE_UNSPECIFIED {
		t.Error("Fd is a record:", got)
	}
	var _ proto.Message = &Header{}
}
