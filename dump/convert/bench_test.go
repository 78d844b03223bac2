package convert_test

import (
	"io"
	"math/rand/v2"
	"testing"

	"vps/dump"
	"vps/dump/convert"
	"vps/internal/dumptest"
)

// BenchmarkSnapshot converts 128 MiB, a third of which is random.
func BenchmarkSnapshot(b *testing.B) {
	const size = 128 << 20
	fill := func(buf []byte, _ []dump.Range) error {
		rnd := rand.NewChaCha8([32]byte{})
		for page := buf; len(page) > 0; page = page[dumptest.PageSize:] {
			rnd.Read(page[:dumptest.PageSize/3])
		}
		return nil
	}
	for _, from := range []dump.Codec{dump.Plain, dump.Zstd} {
		s := dumptest.Open(b, dumptest.Write(b, from, func(w *dump.Writer) {
			must(b, w.Put(1, &dump.Mm{Id: 1}))
			must(b, w.WritePages(dumptest.MM(1), []dump.Range{{Start: 0, End: size}}, fill))
		}))
		for _, to := range []dump.Codec{dump.Plain, dump.Zstd} {
			b.Run(from.String()+"-"+to.String(), func(b *testing.B) {
				b.SetBytes(size)
				for b.Loop() {
					must(b, convert.Snapshot(b.Context(), io.Discard, s, convert.Options{Codec: to}))
				}
			})
		}
	}
}
