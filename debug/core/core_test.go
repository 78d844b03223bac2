package core

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"vps/dump"
	"vps/internal/dumptest"
	"vps/linux"
)

func must(t testing.TB, err error) {
	t.Helper()
	dumptest.Must(t, err)
}

func memoryKey(id uint64) dump.Key { return dump.Key{Type: dump.Type_TYPE_MEMORY, ID: id} }

// process writes the records of a process with two threads; mappings are in pages.
func writeProcess(t testing.TB, w *dump.Writer, mm *dump.Mm) {
	for _, m := range mm.Mappings {
		m.Start *= dumptest.PageSize
		m.End *= dumptest.PageSize
		m.Offset *= dumptest.PageSize
	}
	mm.Id = 7
	must(t, w.Put(7, &dump.Process{Pid: 7, Ppid: 1, Pgid: 7, Sid: 1, Mm: 7, Threads: []uint32{7, 8}, State: dump.Process_STOPPED, StopSignal: 19}))
	must(t, w.Put(7, &dump.Thread{Tid: 7, Pid: 7, Comm: "sh", Regs: &dump.Registers{R15: 0x15, Rip: 0x1234, Gs: 0x99},
		Xstate: bytes.Repeat([]byte{0xab}, 2432), Sigmask: 0xff, Pending: [][]byte{append([]byte{10}, make([]byte, 127)...)}}))
	must(t, w.Put(8, &dump.Thread{Tid: 8, Pid: 7, Regs: &dump.Registers{Rip: 0x5678}}))
	must(t, w.Put(7, mm))
}

func open(t testing.TB, s *dump.Snapshot) (*elf.File, []byte) {
	t.Helper()
	var out bytes.Buffer
	must(t, Write(t.Context(), &out, s, 7))
	f, err := elf.NewFile(bytes.NewReader(out.Bytes()))
	must(t, err)
	if f.Type != elf.ET_CORE || f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		t.Errorf("%+v", f.FileHeader)
	}
	return f, out.Bytes()
}

// shown reads a page: '-' where the core file has none, which a debugger takes for zeros unless a file is mapped there,
// '.' where it is zero, else the byte that fills it.
func shown(t testing.TB, f *elf.File, number uint64) byte {
	t.Helper()
	at := number * dumptest.PageSize
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || at < p.Vaddr || at >= p.Vaddr+p.Memsz {
			continue
		}
		if at-p.Vaddr >= p.Filesz {
			return '-'
		}
		page := make([]byte, dumptest.PageSize)
		_, err := p.ReadAt(page, int64(at-p.Vaddr))
		must(t, err)
		switch {
		case bytes.Count(page, page[:1]) != len(page):
			return '?'
		case page[0] == 0:
			return '.'
		}
		return page[0]
	}
	return ' '
}

func TestMemory(t *testing.T) {
	const a, b = 'a', 'b'
	s := dumptest.Open(t, dumptest.Write(t, dump.Zstd, func(w *dump.Writer) {
		must(t, w.Put(3, &dump.Memory{Id: 3, Size: 6 * dumptest.PageSize}))
		must(t, w.WritePages(memoryKey(3), []dump.Range{dumptest.Pages(1, 3)}, dumptest.Fill(func(p uint64) byte { return '0' + byte(p) })))
		writeProcess(t, w, &dump.Mm{Mappings: []*dump.Mapping{
			{Start: 1, End: 5, Prot: 3},                                           // anonymous: touched, untouched, zero
			{Start: 10, End: 16, Prot: 5, Kind: dump.Mapping_FILE},                // private of a file: written, zeroed
			{Start: 20, End: 24, Kind: dump.Mapping_MEMORY, Memory: 3, Offset: 1}, // shared memory, pages 1 to 4
			{Start: 30, End: 34, Kind: dump.Mapping_MEMORY, Memory: 3, Offset: 1}, // the same, with pages of its own
			{Start: 40, End: 100, Prot: 3},                                        // a large gap
			{Start: 200, End: 201, Kind: dump.Mapping_VVAR},
			{Start: 1 << 51, End: 1<<51 + 1, Kind: dump.Mapping_VSYSCALL},
		}})
		must(t, w.WritePages(dumptest.MM(7), []dump.Range{dumptest.Pages(1, 1), dumptest.Pages(4, 1), dumptest.Pages(11, 1), dumptest.Pages(31, 2), dumptest.Pages(40, 1), dumptest.Pages(99, 1)}, dumptest.Constant(a)))
		must(t, w.WriteZeros(dumptest.MM(7), []dump.Range{dumptest.Pages(3, 1), dumptest.Pages(12, 1), dumptest.Pages(32, 1)}))
		must(t, w.WritePages(dumptest.MM(7), []dump.Range{dumptest.Pages(13, 1)}, dumptest.Constant(b)))
	}))
	f, file := open(t, s)
	var got strings.Builder
	for p := range uint64(50) {
		got.WriteByte(shown(t, f, p))
	}
	want := " a..a" + "     " + "-a.b--" + "    " + "123-" + "      " + "1a--" + "      " + "a---------"
	if text := got.String(); text != want {
		t.Errorf("memory is\n%q, want\n%q", text, want)
	}
	if shown(t, f, 99) != a || len(file) > 30*dumptest.PageSize {
		t.Errorf("the end of the gap is %q, the file has %d bytes", shown(t, f, 99), len(file))
	}
	if flags := f.Progs[1].Flags; flags != elf.PF_R|elf.PF_W {
		t.Error("flags", flags)
	}
}

// note is one of a core file.
type note struct {
	name string
	kind uint32
	desc []byte
}

func notes(t testing.TB, f *elf.File) (list []note) {
	t.Helper()
	i := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_NOTE })
	b, err := io.ReadAll(f.Progs[i].Open())
	must(t, err)
	for len(b) > 0 {
		name, desc := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		n := note{kind: binary.LittleEndian.Uint32(b[8:])}
		b = b[12:]
		n.name = strings.TrimRight(string(b[:name]), "\x00")
		b = b[(name+3)&^3:]
		n.desc = b[:desc]
		b = b[(desc+3)&^3:]
		list = append(list, n)
	}
	return list
}

func TestNotes(t *testing.T) {
	s := dumptest.Open(t, dumptest.Write(t, dump.Plain, func(w *dump.Writer) {
		writeProcess(t, w, &dump.Mm{
			Mappings: []*dump.Mapping{
				{Start: 1, End: 2, Prot: 3},
				{Start: 3, End: 5, Kind: dump.Mapping_FILE, Offset: 6, File: &dump.FileRef{Path: "/lib/libc.so"}}},
			Auxv: []byte("0123456789abcdef"), ArgStart: 0x1ff0, ArgEnd: 0x2000,
		})
		must(t, w.WritePages(dumptest.MM(7), []dump.Range{dumptest.Pages(1, 1)}, func(buf []byte, _ []dump.Range) error {
			copy(buf[0xff0:], "sh\x00-c\x00sleep 1\x00")
			return nil
		}))
	}))
	f, _ := open(t, s)
	list := notes(t, f)
	var order []uint32
	for _, n := range list {
		order = append(order, n.kind)
	}
	if want := []uint32{linux.NT_PRSTATUS, linux.NT_PRPSINFO, linux.NT_AUXV, linux.NT_FILE, linux.NT_PRFPREG, linux.NT_X86_XSTATE, linux.NT_PRSTATUS}; !slices.Equal(order, want) {
		t.Fatalf("notes %x, want %x", order, want)
	}
	status := list[0].desc
	word := func(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	// Offsets of struct elf_prstatus: pr_cursig, pr_sigpend, pr_sighold, pr_pid, pr_reg (r15 first, rip the 17th, gs the last), pr_fpvalid.
	if len(status) != 336 || status[12] != 19 || word(status, 16) != 1<<9 || word(status, 24) != 0xff || status[32] != 7 ||
		word(status, 112) != 0x15 || word(status, 112+16*8) != 0x1234 || word(status, 112+26*8) != 0x99 || status[328] != 1 {
		t.Errorf("prstatus % x", status)
	}
	info := list[1].desc
	if len(info) != 136 || info[1] != 'T' || !bytes.HasPrefix(info[40:], []byte("sh\x00")) || !bytes.HasPrefix(info[56:], []byte("sh -c sleep 1\x00")) {
		t.Errorf("prpsinfo %q", info)
	}
	if string(list[2].desc) != "0123456789abcdef" || len(list[4].desc) != 512 || len(list[5].desc) != 2432 || list[5].name != "LINUX" {
		t.Error("auxv or extended state")
	}
	files := list[3].desc
	if word(files, 0) != 1 || word(files, 8) != dumptest.PageSize || word(files, 16) != 3*dumptest.PageSize || word(files, 32) != 6 || string(files[40:]) != "/lib/libc.so\x00" {
		t.Errorf("files %q", files)
	}
	if second := list[6].desc; second[32] != 8 || word(second, 112+16*8) != 0x5678 || second[328] != 0 {
		t.Errorf("second thread % x", second)
	}
}

// TestManySegments needs more program headers than their count's field can tell.
func TestManySegments(t *testing.T) {
	const many = 70_000
	s := dumptest.Open(t, dumptest.Write(t, dump.Plain, func(w *dump.Writer) {
		writeProcess(t, w, &dump.Mm{Mappings: []*dump.Mapping{{Start: 1, End: 2*many + 1, Kind: dump.Mapping_FILE}}})
		for p := uint64(1); p < 2*many; p += 2 * 8192 {
			var ranges []dump.Range
			for q := p; q < min(p+2*8192, 2*many); q += 2 {
				ranges = append(ranges, dumptest.Pages(q, 1))
			}
			must(t, w.WriteZeros(dumptest.MM(7), ranges))
		}
	}))
	p, err := load(s, 7)
	must(t, err)
	if len(p.segments) != 2*many {
		t.Errorf("%d segments", len(p.segments))
	}
	h := p.headers(p.notes())
	at := binary.LittleEndian.Uint64(h[40:])
	if n := binary.LittleEndian.Uint16(h[56:]); n != 0xffff || binary.LittleEndian.Uint32(h[at+44:]) != 2*many+1 {
		t.Errorf("%#x program headers, section header at %#x", n, at)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		name, text string
		class      error
		pid        uint32
		write      func(w *dump.Writer)
	}{
		{"no process", "pid 9: no such process", ErrNoProcess, 9, func(w *dump.Writer) { writeProcess(t, w, &dump.Mm{}) }},
		{"a zombie", "is a zombie", ErrNoProcess, 9, func(w *dump.Writer) { must(t, w.Put(9, &dump.Process{Pid: 9, State: dump.Process_ZOMBIE})) }},
		{"no memory", "record PROCESS 9: there is no memory 5", dump.ErrCorrupt, 9, func(w *dump.Writer) { must(t, w.Put(9, &dump.Process{Pid: 9, Mm: 5})) }},
		{"no thread", "record PROCESS 7: there is no thread 8", dump.ErrCorrupt, 7, func(w *dump.Writer) {
			writeProcess(t, w, &dump.Mm{})
			must(t, w.Delete(dump.Key{Type: dump.Type_TYPE_THREAD, ID: 8}))
		}},
		{"threads twice", "thread 7 is there twice", dump.ErrCorrupt, 7, func(w *dump.Writer) {
			writeProcess(t, w, &dump.Mm{})
			must(t, w.Put(7, &dump.Process{Pid: 7, Mm: 7, Threads: []uint32{7, 7}}))
		}},
		{"out of order", "record MM 7: mapping 0x1000-0x2000 is out of order", dump.ErrCorrupt, 7, func(w *dump.Writer) {
			writeProcess(t, w, &dump.Mm{Mappings: []*dump.Mapping{{Start: 5, End: 6}, {Start: 1, End: 2}}})
		}},
		{"upside down", "is not ascending", dump.ErrCorrupt, 7, func(w *dump.Writer) {
			writeProcess(t, w, &dump.Mm{Mappings: []*dump.Mapping{{Start: 5, End: 1}}})
		}},
		{"beyond everything", "of MEMORY 1: range", dump.ErrCorrupt, 7, func(w *dump.Writer) {
			writeProcess(t, w, &dump.Mm{Mappings: []*dump.Mapping{{Start: 1, End: 2, Kind: dump.Mapping_MEMORY, Memory: 1, Offset: 1<<52 - 1}}})
		}},
	} {
		s := dumptest.Open(t, dumptest.Write(t, dump.Plain, test.write))
		err := Write(t.Context(), io.Discard, s, test.pid)
		var format *dump.FormatError
		if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.text) || test.class == dump.ErrCorrupt && !errors.As(err, &format) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// FuzzCore makes core files of whatever a snapshot says: each is a core file, or the error tells what is wrong where.
func FuzzCore(f *testing.F) {
	process := []byte{0,
		7, 0, 0, 0, 1, 0, 1, 0, 1, 1, // PROCESS 1, of thread 1 and MM 1
		7, 0, 0, 1, 1, 1, 0, 0, 1, 5, 2, 0, // THREAD 1
	}
	f.Add(append(slices.Clone(process), // anonymous memory and a file; pages in both
		0, 0, 1, 2, 2, 2, 0, 2, 1, 2, 9, 2, 3, 0, 0, 0, 0, 2, 0, 20, 2, 30, 2, 1, 0, 1, 0, 0, 2, 1, '/', 1, 1, 3, 18, 5, 0, 1))
	f.Add(append(slices.Clone(process), // a memfd, mapped privately with a page of its own
		0, 4, 9, 2, 0, 0, 7, 0, 3,
		0, 0, 1, 2, 2, 2, 0, 1, 1, 2, 9, 2, 3, 0, 2, 1, 0, 2, 0, 3, 0, 0, 0, 2))
	f.Fuzz(func(t *testing.T, script []byte) {
		s := dumptest.Open(t, dumptest.Script(t, script))
		for _, pid := range s.IDs(dump.Type_TYPE_PROCESS) {
			var out limited
			err := Write(t.Context(), &out, s, uint32(pid))
			var format *dump.FormatError
			switch {
			case errors.Is(err, errFull), errors.Is(err, ErrNoProcess):
			case err == nil:
				if _, err := elf.NewFile(bytes.NewReader(out.Bytes())); err != nil {
					t.Error(err)
				}
			case !errors.As(err, &format) || format.What == "":
				t.Error("no place and reason:", err)
			}
		}
	})
}

var errFull = errors.New("enough")

// limited takes some megabytes: a file may be large and hardly cost anything, as zeros.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if l.Len() > 8<<20 {
		return 0, errFull
	}
	return l.Buffer.Write(b)
}
