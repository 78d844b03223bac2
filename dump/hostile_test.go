package dump

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"vps/dump/internal/queue"
)

// readAll reads a file in every way there is; it is as good as the worst of them.
func readAll(file []byte) (opened, streamed error) {
	s, opened := Open(bytes.NewReader(file), int64(len(file)))
	if opened == nil {
		opened = s.Verify(context.Background())
	}
	r, streamed := NewReader(bytes.NewReader(file))
	if streamed == nil {
		streamed = r.drain(func(u Unit) error {
			if rec, ok := u.(*Record); ok && !rec.Deleted {
				if _, err := rec.Message(); !isUnsupported(err) {
					return err
				}
			}
			return nil
		})
	}
	return opened, streamed
}

// wantFormatError expects an error with a place and a class.
func wantFormatError(t *testing.T, what string, err error) {
	t.Helper()
	var f *FormatError
	if !errors.As(err, &f) || f.Class == nil || f.What == "" {
		t.Errorf("%s: %v", what, err)
	}
}

// TestEveryBit flips each bit of a small snapshot.
func TestEveryBit(t *testing.T) {
	for _, codec := range []Codec{Plain, Zstd} {
		file := sample(t, codec)
		if opened, streamed := readAll(file); opened != nil || streamed != nil {
			t.Fatal(opened, streamed)
		}
		const parts = 8
		for part := range parts {
			t.Run(fmt.Sprint(codec, part), func(t *testing.T) {
				t.Parallel()
				file := bytes.Clone(file)
				for i := part; i < len(file)*8; i += parts {
					file[i/8] ^= 1 << (i % 8)
					opened, streamed := readAll(file)
					wantFormatError(t, fmt.Sprintf("open with bit %d of byte %d flipped", i%8, i/8), opened)
					wantFormatError(t, fmt.Sprintf("stream with bit %d of byte %d flipped", i%8, i/8), streamed)
					file[i/8] ^= 1 << (i % 8)
				}
			})
		}
	}
}

// TestEveryLength cuts a small snapshot everywhere, and appends to it.
func TestEveryLength(t *testing.T) {
	file := sample(t, Plain)
	for n := range file {
		opened, streamed := readAll(file[:n])
		if !errors.Is(opened, ErrTruncated) || !errors.Is(streamed, ErrTruncated) {
			t.Fatalf("cut to %d of %d bytes: open %v, stream %v", n, len(file), opened, streamed)
		}
	}
	if opened, _ := readAll(append(file, 0)); opened == nil {
		t.Error("a byte after the end was not noticed")
	}
	if opened, _ := readAll(append(file, file...)); opened == nil {
		t.Error("a second snapshot after the end was not noticed")
	}
}

// forge makes a snapshot with correct checksums from units, of which the trailer knows nothing.
func forge(units ...[]byte) []byte {
	b, err := appendHeader(nil, testHeader(), Version{1, 3})
	if err != nil {
		panic(err)
	}
	for _, u := range units {
		b = append(b, u...)
	}
	b = append(b, make([]byte, footerSize)...)
	return append(b, endMagic...)
}

func forgeUnit(kind, flags uint32, id uint64, payload []byte) []byte {
	b := append(make([]byte, unitHeadSize), payload...)
	putUnitHead(b, kind, flags, id)
	return b
}

func forgeRecord(id uint64, m proto.Message) []byte {
	payload, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return forgeUnit(uint32(TypeOf(m)), 0, id, payload)
}

// forgeFrame makes a frame of MM 1, with its head changed and its checksum correct, as it stands behind the units.
func forgeFrame(before [][]byte, f Frame, stored []byte, extents []Extent, change func(payload []byte)) []byte {
	f.Key, f.Size = mm(1), len(stored)
	if f.Sum == 0 {
		f.Sum = checksum(stored)
	}
	if f.Digest == [32]byte{} && f.Kind == Pages {
		f.Digest = sha256.Sum256(stored)
	}
	b := appendFrame(nil, &f, extents)
	if change != nil {
		change(b[unitHeadSize:])
	}
	putUnitHead(b, unitFrame, 0, 1)
	if f.Codec == Plain && f.Kind == Pages {
		off := len(forge(before...)) - footerSize - len(endMagic) + len(b)
		b = append(b, make([]byte, paddingAt(int64(off), pageSize))...)
	}
	return append(b, stored...)
}

func TestForged(t *testing.T) {
	page := bytes.Repeat([]byte{1}, pageSize)
	one := []Extent{{Range: pages(1, 1), Frame: Zero}}
	layout := forgeRecord(1, &Mm{Id: 1})
	behind := func(f Frame, stored []byte, extents []Extent, change func([]byte)) []byte {
		return forge(layout, forgeFrame([][]byte{layout}, f, stored, extents, change))
	}
	plain := Frame{Kind: Pages, Count: 1}
	set32 := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) }
	}
	shared := func(frame, index int) []byte {
		first := forgeFrame([][]byte{layout}, plain, page, one, nil)
		return forge(layout, first, forgeFrame([][]byte{layout, first}, Frame{Kind: Shared}, nil,
			[]Extent{{Range: pages(1, 1), Frame: frame, Index: index}}, nil))
	}
	long := forgeUnit(uint32(Type_TYPE_PROCESS), 0, 1, nil)
	binary.LittleEndian.PutUint32(long[16:], 0xffffffff)
	longest := forgeUnit(uint32(Type_TYPE_PROCESS), 0, 1, nil)
	binary.LittleEndian.PutUint32(longest[16:], MaxPayload)

	tests := []struct {
		name  string
		file  []byte
		class error
		text  string
	}{
		{"nothing", nil, ErrTruncated, "ends within its header"},
		{"another file", bytes.Repeat([]byte("PK\x03\x04"), 100), ErrNotSnapshot, "offset 0: not a snapshot file"},
		{"newer major", patch(forge(), 8, 2), ErrVersion, "format 2.3 cannot be read by this program, which reads 1.x"},
		{"big endian", patch(forge(), 12, 2), ErrUnsupported, "byte order"},
		{"long header", patch(forge(), 18, 2), ErrCorrupt, "longer than"},
		{"no trailer", forge(), ErrCorrupt, "checksum mismatch"},
		{"long payload", forge(long), ErrCorrupt, "record PROCESS 1: 4294967295 bytes are more than 16777216"},
		{"missing payload", forge(longest), ErrTruncated, "ends within its record PROCESS 1"},
		{"type 0", forge(forgeUnit(0, 0, 1, nil)), ErrCorrupt, "must not be 0"},
		{"id 0", forge(forgeUnit(1, 0, 0, nil)), ErrCorrupt, "must not be 0"},
		{"framing of the future", forge(forgeUnit(0x80000000, 0, 1, nil)), ErrUnsupported, "unit of type 0x80000000"},
		{"flags", forge(forgeUnit(1, 2, 1, nil)), ErrUnsupported, "flags 0x2"},
		{"tombstone with payload", forge(forgeUnit(1, 1, 1, []byte{0})), ErrCorrupt, "tombstone INSTANCE 1: has a payload"},
		{"early trailer", forge(forgeUnit(unitEnd, 0, 0, make([]byte, 16)), make([]byte, 100)), ErrCorrupt, "footer"},
		{"wrong counts", forge(layout, forgeUnit(unitEnd, 0, 0, make([]byte, 16))), ErrCorrupt, "does not count 1 records and 0 frames"},
		{"huge counts", forge(forgeUnit(unitEnd, 0, 0, bytes.Repeat([]byte{255}, 16))), ErrCorrupt, "does not count"},
		{"pages first", forge(forgeFrame(nil, plain, page, one, nil)), ErrCorrupt, "frame 0 of MM 1: pages come before their record"},
		{"short frame", forge(layout, forgeUnit(unitFrame, 0, 1, make([]byte, 10))), ErrCorrupt, "too short for a head"},
		{"frame flags", forge(layout, forgeUnit(unitFrame, 1, 1, make([]byte, 100))), ErrUnsupported, "flags 0x1"},
		{"kind", behind(plain, page, one, func(b []byte) { b[0] = 5 }), ErrUnsupported, "kind 5"},
		{"codec", behind(plain, page, one, func(b []byte) { b[1] = 2 }), ErrUnsupported, "codec 2 is not supported"},
		{"seal", behind(plain, page, one, set32(8, 5)), ErrUnsupported, "sealed with key 5"},
		{"pack", behind(plain, page, one, set32(12, 1)), ErrUnsupported, "stored in pack 1"},
		{"no ranges", behind(plain, page, nil, nil), ErrCorrupt, "0 ranges in 0 bytes"},
		{"many ranges", behind(plain, page, one, set32(16, 0xffffffff)), ErrCorrupt, "4294967295 ranges in 24 bytes"},
		{"many pages", behind(plain, page, one, set32(20, 0xffffffff)), ErrCorrupt, "more than a frame may hold"},
		{"many bytes", behind(plain, page, one, set32(24, 0xffffffff)), ErrCorrupt, "more than a frame may hold"},
		{"few bytes", behind(plain, page[1:], one, nil), ErrCorrupt, "4095 bytes cannot be 1 pages"},
		{"more pages than in ranges", behind(Frame{Kind: Pages, Count: 2}, append(page, page...), one, nil), ErrCorrupt, "ranges have 1 pages, not 2"},
		{"fewer pages than in ranges", behind(plain, page, []Extent{{Range: pages(1, 1<<40)}}, nil), ErrCorrupt, "have more than 1 pages"},
		{"empty range", behind(plain, page, []Extent{{Range: pages(1, 0)}}, nil), ErrCorrupt, "not ascending"},
		{"high range", behind(Frame{Kind: Zeros}, nil, []Extent{{Range: Range{Start: 0, End: 1<<63 + pageSize}, Frame: Zero}}, nil), ErrCorrupt, "not ascending"},
		{"unaligned range", behind(plain, page, []Extent{{Range: Range{Start: 1, End: 4097}}}, nil), ErrCorrupt, "not aligned"},
		{"ranges out of order", behind(Frame{Kind: Pages, Count: 2}, append(page, page...), []Extent{{Range: pages(2, 1)}, {Range: pages(1, 1)}}, nil), ErrCorrupt, "out of order"},
		{"ranges that overlap", behind(Frame{Kind: Zeros}, nil, []Extent{{Range: pages(2, 2)}, {Range: pages(3, 1)}}, nil), ErrCorrupt, "out of order"},
		{"source of stored pages", behind(plain, page, one, func(b []byte) { b[frameHeadSize+16] = 1 }), ErrCorrupt, "has a source"},
		{"zeros that store", behind(Frame{Kind: Zeros, Count: 1}, page, one, nil), ErrCorrupt, "its kind does not have"},
		{"shared from itself", shared(1, 0), ErrCorrupt, "refers to frame 1, which does not come before"},
		{"shared from far off", shared(0xffffffff, 0), ErrCorrupt, "refers to frame 4294967295"},
		{"shared past the end", shared(0, 1), ErrCorrupt, "refers to page 1 of frame 0, which has 1"},
		{"shared far past the end", shared(0, 0xffffffff), ErrCorrupt, "refers to page 4294967295 of frame 0"},
		{"compressed to nothing", behind(Frame{Kind: Pages, Count: 1, Codec: Zstd}, nil, one, nil), ErrCorrupt, "0 bytes cannot be 1 pages"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			opened, streamed := readAll(test.file)
			for how, err := range map[string]error{"open": opened, "stream": streamed} {
				wantFormatError(t, how, err)
				if !errors.Is(err, test.class) || !strings.Contains(fmt.Sprint(err), test.text) {
					t.Errorf("%s: %v", how, err)
				}
			}
		})
	}

	// What only the content of a frame shows, the stream finds on its way.
	padding := behind(plain, page, one, nil)
	padding[bytes.LastIndex(padding, page)-1] = 1
	for _, test := range []struct {
		name string
		file []byte
		text string
	}{
		{"padding", padding, "padding is not zero"},
		{"checksum", behind(Frame{Kind: Pages, Count: 1, Sum: 1}, page, one, nil), "frame 0 of MM 1: checksum mismatch"},
		{"digest", behind(Frame{Kind: Pages, Count: 1, Digest: [32]byte{1}}, page, one, nil), "frame 0 of MM 1: digest mismatch"},
		{"no zstd", behind(Frame{Kind: Pages, Count: 1, Codec: Zstd}, []byte("zzzzzzzzzzzz"), one, nil), "frame 0 of MM 1: invalid input"},
		{"bomb", behind(Frame{Kind: Pages, Count: 1, Codec: Zstd}, squeeze(make([]byte, 30<<20)), one, nil), "frame 0 of MM 1: "},
		{"too much", behind(Frame{Kind: Pages, Count: 1, Codec: Zstd}, squeeze(make([]byte, 2*pageSize)), one, nil), "decompressed to 8192 bytes, not 4096"},
		{"too little", behind(Frame{Kind: Pages, Count: 1, Codec: Zstd}, squeeze(make([]byte, pageSize-1)), one, nil), "decompressed to 4095 bytes, not 4096"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := readAll(test.file)
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Error(err)
			}
		})
	}
}

// squeeze compresses b.
func squeeze(b []byte) []byte {
	e, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return e.EncodeAll(b, nil)
}

func patch(b []byte, at int, v byte) []byte {
	b[at] = v
	return b
}

// TestWrongDigest gives a frame a correct CRC but another digest, and the trailer to match: only the digest tells.
func TestWrongDigest(t *testing.T) {
	file := write(t, Plain, func(w *Writer) {
		must(t, w.Put(1, &Mm{Id: 1}))
		must(t, w.queue.Submit(queue.Job{Do: func() error {
			return w.emitPages(&prepared{
				Frame:   Frame{Key: mm(1), Kind: Pages, Count: 1, Size: pageSize, Sum: checksum(make([]byte, pageSize))},
				extents: []Extent{{Range: pages(1, 1)}},
				stored:  make([]byte, pageSize),
			})
		}}))
	})
	opened, streamed := readAll(file)
	for _, err := range []error{opened, streamed} {
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(fmt.Sprint(err), "frame 0 of MM 1: digest mismatch") {
			t.Error(err)
		}
	}
}

// TestMemoryForClaims reads files whose lengths claim much and expects that little is allocated.
func TestMemoryForClaims(t *testing.T) {
	claim := forgeUnit(uint32(Type_TYPE_PROCESS), 0, 1, nil)
	binary.LittleEndian.PutUint32(claim[16:], MaxPayload)
	layout := forgeRecord(1, &Mm{Id: 1})
	frame := forgeFrame([][]byte{layout}, Frame{Kind: Pages, Count: MaxFrame / pageSize, Sum: 1, Digest: [32]byte{1}}, nil,
		[]Extent{{Range: pages(0, MaxFrame/pageSize)}}, func(b []byte) { binary.LittleEndian.PutUint32(b[24:], MaxFrame) })
	zeros := forgeFrame([][]byte{layout}, Frame{Kind: Zeros}, nil, []Extent{{Range: Range{Start: 0, End: 1 << 62}, Frame: Zero}}, nil)
	for name, file := range map[string][]byte{
		"record": forge(claim), "frame": forge(layout, frame), "zeros": forge(layout, zeros),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		opened, streamed := readAll(file)
		runtime.ReadMemStats(&after)
		if opened == nil || streamed == nil {
			t.Errorf("%s: no error", name)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: a file of %d bytes made the readers allocate %d", name, len(file), n)
		}
	}
}

// TestManyEmptyFields has a record that would be 100 times larger in memory.
func TestManyEmptyFields(t *testing.T) {
	empty := bytes.Repeat([]byte{2<<3 | 2, 0}, MaxPayload/2) // Mm.mappings
	_, err := decode(mm(1), empty, 0, Version{1, 0})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "more than 1048576 fields") {
		t.Error(err)
	}
}

// TestNewerMinor reads what a later version of the format may have written.
func TestNewerMinor(t *testing.T) {
	var out bytes.Buffer
	w, err := newWriter(&out, testHeader(), Version{1, 3}, Plain)
	must(t, err)
	must(t, w.Put(1, &Process{Pid: 1}))
	for _, u := range [][]byte{
		forgeUnit(77, 0, 5, []byte("?")),
		forgeUnit(uint32(Type_TYPE_PROCESS), 0, 2, []byte{11<<3 | 2, 3, 0xf8, 0x3f, 1}), // cwd: field 1023
	} {
		must(t, w.queue.Submit(queue.Job{Do: func() error {
			k := Key{Type(binary.LittleEndian.Uint32(u)), binary.LittleEndian.Uint64(u[8:])}
			w.ledger.record(k, span{w.off, len(u)})
			return w.write(u)
		}}))
	}
	must(t, w.Close())
	s := open(t, out.Bytes())
	must(t, s.Verify(t.Context()))
	if _, err := Get[*Process](s, 1); err != nil {
		t.Error(err)
	}
	found, err := s.Unsupported()
	must(t, err)
	text := fmt.Sprint(found)
	for _, want := range []string{"cannot read record type 77 (written by format 1.3)", "record PROCESS 2: cannot read cwd: field 1023"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
}

func TestCheckHost(t *testing.T) {
	host := testHeader()
	host.CpuFeatures = append(host.CpuFeatures, "sha_ni")
	must(t, testHeader().CheckHost(host))
	tests := []struct {
		change func(h *Header)
		class  error
		text   string
	}{
		{func(h *Header) { h.Arch = "aarch64" }, ErrArch, `written on "aarch64", this machine is "x86_64"`},
		{func(h *Header) { h.PageSize = 16384 }, ErrArch, "pages of 16384 bytes, this machine of 4096"},
		{func(h *Header) { h.CpuFeatures = []string{"fpu", "amx_tile", "avx512f"} }, ErrCPU, `needs "amx_tile", "avx512f"`},
	}
	for _, test := range tests {
		h := testHeader()
		test.change(h)
		if err := h.CheckHost(host); !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.text) {
			t.Error(err)
		}
	}
}
