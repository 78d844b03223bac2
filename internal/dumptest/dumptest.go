// Package dumptest makes small snapshots for tests.
package dumptest

import (
	"bytes"
	"testing"

	"vps/dump"
)

// PageSize is that of the snapshots made here.
const PageSize = 4096

// Header is one of an instance named web.
func Header() *dump.Header {
	return &dump.Header{Arch: "x86_64", PageSize: PageSize, Kernel: "6.18.0", CpuFeatures: []string{"fpu", "avx2"},
		Created: 1795464000e9, Instance: "web"}
}

// Write makes a snapshot in memory.
func Write(t testing.TB, codec dump.Codec, content func(w *dump.Writer)) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := dump.NewWriter(&out, Header(), codec)
	Must(t, err)
	content(w)
	Must(t, w.Close())
	return out.Bytes()
}

// Open opens a snapshot in memory.
func Open(t testing.TB, file []byte) *dump.Snapshot {
	t.Helper()
	s, err := dump.Open(bytes.NewReader(file), int64(len(file)))
	Must(t, err)
	return s
}

// Must ends a test with an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// MM is the key of an address space.
func MM(id uint64) dump.Key { return dump.Key{Type: dump.Type_TYPE_MM, ID: id} }

// Pages returns a range of n pages from page first on.
func Pages(first, n uint64) dump.Range {
	return dump.Range{Start: first * PageSize, End: (first + n) * PageSize}
}

// Fill fills each page with the byte that content gives for the page's number.
func Fill(content func(page uint64) byte) func([]byte, []dump.Range) error {
	return func(buf []byte, ranges []dump.Range) error {
		for _, r := range ranges {
			for at := r.Start; at < r.End; at += PageSize {
				copy(buf, bytes.Repeat([]byte{content(at / PageSize)}, PageSize))
				buf = buf[PageSize:]
			}
		}
		return nil
	}
}

// Constant fills all pages with one byte.
func Constant(c byte) func([]byte, []dump.Range) error { return Fill(func(uint64) byte { return c }) }

// Sample is a small snapshot with everything in it: records that are replaced and withdrawn; pages that are stored,
// replaced, shared and zero.
func Sample(t testing.TB, codec dump.Codec) []byte {
	return SampleWith(t, codec, func(*dump.Writer) {})
}

// SampleWith is the same, with something more at its end.
func SampleWith(t testing.TB, codec dump.Codec, more func(w *dump.Writer)) []byte {
	return Write(t, codec, func(w *dump.Writer) {
		Must(t, w.Put(1, &dump.Instance{Name: "web", Hostname: "web.example", Config: "NAME = web\nFSROOT = /srv/web\n"}))
		Must(t, w.Put(1, &dump.Process{Pid: 1, Mm: 1, FdTable: 1, Threads: []uint32{1}}))
		Must(t, w.Put(1, &dump.Thread{Tid: 1, Pid: 1, Comm: "init"}))
		Must(t, w.Put(7, &dump.Process{Pid: 7, Ppid: 1, Mm: 7, FdTable: 7, Threads: []uint32{7}}))
		Must(t, w.Put(7, &dump.Thread{Tid: 7, Pid: 7, Comm: "sh"}))
		Must(t, w.Put(9, &dump.Process{Pid: 9, Ppid: 1}))
		Must(t, w.Put(1, &dump.FdTable{Id: 1, Fds: []*dump.Fd{{Fd: 0, File: 3}, {Fd: 3, File: 4}}}))
		Must(t, w.Put(7, &dump.FdTable{Id: 7, Fds: []*dump.Fd{{Fd: 0, File: 3}}}))
		Must(t, w.Put(3, &dump.File{Id: 3, Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/dev/null"}}}))
		Must(t, w.Put(4, &dump.File{Id: 4, Pos: 10, Kind: &dump.File_Memory{Memory: 5}}))
		Must(t, w.Put(5, &dump.Memory{Id: 5, Kind: dump.Memory_MEMFD, Name: "cache", Size: 3 * PageSize / 2}))
		Must(t, w.WritePages(dump.Key{Type: dump.Type_TYPE_MEMORY, ID: 5}, []dump.Range{Pages(0, 2)}, Constant('m')))
		Must(t, w.Put(1, &dump.Mm{Id: 1, Mappings: []*dump.Mapping{{Start: 0x1000, End: 0x9000, Prot: 3}}}))
		Must(t, w.Put(7, &dump.Mm{Id: 7, Mappings: []*dump.Mapping{{Start: 0x1000, End: 0x9000, Prot: 3}}}))
		Must(t, w.WritePages(MM(1), []dump.Range{Pages(1, 2), Pages(4, 2)}, Fill(func(p uint64) byte { return byte(p % 4) })))
		Must(t, w.WriteShared(MM(7), []dump.Range{Pages(1, 2)}, MM(1), 0))
		Must(t, w.WriteZeros(MM(1), []dump.Range{Pages(2, 1)}))
		Must(t, w.WritePages(MM(1), []dump.Range{Pages(5, 1)}, Constant('5')))
		Must(t, w.Put(7, &dump.Thread{Tid: 7, Pid: 7, Comm: "bash"}))
		Must(t, w.Delete(dump.Key{Type: dump.Type_TYPE_PROCESS, ID: 9}))
		more(w)
	})
}
