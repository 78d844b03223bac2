package dump

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memory is 256 MiB that do not compress to nothing: a third of each page is random.
func memory() []byte {
	b := make([]byte, 256<<20)
	rnd := rand.NewChaCha8([32]byte{})
	for p := 0; p < len(b); p += pageSize {
		rnd.Read(b[p : p+pageSize/3])
	}
	return b
}

func writeMemory(b *testing.B, w *Writer, mem []byte) {
	must(b, w.Put(1, &Mm{Id: 1}))
	must(b, w.WritePages(mm(1), []Range{{Start: 0, End: uint64(len(mem))}}, func(buf []byte, ranges []Range) error {
		for _, r := range ranges {
			buf = buf[copy(buf, mem[r.Start:r.End]):]
		}
		return nil
	}))
}

func BenchmarkWrite(b *testing.B) {
	mem := memory()
	for _, codec := range []Codec{Plain, Zstd} {
		b.Run("discard/"+codec.String(), func(b *testing.B) {
			b.SetBytes(int64(len(mem)))
			for b.Loop() {
				w, err := NewWriter(io.Discard, testHeader(), codec)
				must(b, err)
				writeMemory(b, w, mem)
				must(b, w.Close())
			}
		})
		b.Run("file/"+codec.String(), func(b *testing.B) {
			b.SetBytes(int64(len(mem)))
			path := filepath.Join(b.TempDir(), "snapshot")
			for b.Loop() { // to the page cache: the disk of the machine is not what is measured
				f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
				must(b, err)
				w, err := NewWriter(f, testHeader(), codec)
				must(b, err)
				writeMemory(b, w, mem)
				must(b, w.Close())
				must(b, f.Close())
			}
		})
	}
}

func BenchmarkWriteScattered(b *testing.B) {
	const n = 16384
	ranges := make([]Range, n)
	for i := range ranges {
		ranges[i] = pages(uint64(2*i), 1)
	}
	content := bytes.Repeat([]byte{1}, MaxFrame)
	b.SetBytes(n * pageSize)
	for b.Loop() {
		w, err := NewWriter(io.Discard, testHeader(), Plain)
		must(b, err)
		must(b, w.Put(1, &Mm{Id: 1}))
		must(b, w.WritePages(mm(1), ranges, func(buf []byte, _ []Range) error {
			copy(buf, content)
			return nil
		}))
		must(b, w.Close())
	}
}

func benchmarkFile(b *testing.B, codec Codec) *os.File {
	f, err := os.Create(filepath.Join(b.TempDir(), "snapshot"))
	must(b, err)
	b.Cleanup(func() { f.Close() })
	w, err := NewWriter(f, testHeader(), codec)
	must(b, err)
	mem := memory()
	writeMemory(b, w, mem)
	must(b, w.Close())
	b.SetBytes(int64(len(mem)))
	return f
}

func BenchmarkRead(b *testing.B) {
	for _, codec := range []Codec{Plain, Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			s, err := OpenFrom(benchmarkFile(b, codec))
			must(b, err)
			for b.Loop() {
				for _, err := range s.Pages(mm(1)) {
					must(b, err)
				}
			}
		})
	}
}

func BenchmarkStream(b *testing.B) {
	f := benchmarkFile(b, Plain)
	for b.Loop() {
		_, err := f.Seek(0, io.SeekStart)
		must(b, err)
		r, err := NewReader(f)
		must(b, err)
		must(b, r.drain(func(Unit) error { return nil }))
	}
}

// BenchmarkVerify is what showdump --verify does with a file in the page cache: 1 GB/s a core are wanted. It reports how
// much memory of an instance is verified in a second of a processor's time.
func BenchmarkVerify(b *testing.B) {
	for _, codec := range []Codec{Plain, Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			f := benchmarkFile(b, codec)
			used := processorTime(b)
			for b.Loop() {
				info, err := f.Stat()
				must(b, err)
				must(b, Verify(b.Context(), f, info.Size()))
			}
			used = processorTime(b) - used
			b.ReportMetric(float64(len(memory()))*float64(b.N)/1e9/used.Seconds(), "GB/s/core")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkTiny is the cost of the format itself: a small instance's records and pages.
func BenchmarkTiny(b *testing.B) {
	var size int
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			size = len(sample(b, Plain))
		}
		b.ReportMetric(float64(size), "B")
	})
	file := sample(b, Plain)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			open(b, file)
		}
	})
}
