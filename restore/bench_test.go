package restore_test

import (
	"fmt"
	"testing"
	"time"

	"vps/dump"
	"vps/object/recordset"
	"vps/restore"
)

// BenchmarkRestore restores a process with much memory. The time of Into is that of a restore without its namespaces.
func BenchmarkRestore(b *testing.B) {
	for _, test := range []struct {
		mib  int
		lazy bool
	}{{1, false}, {16, false}, {256, false}, {2048, false}, {2048, true}} {
		b.Run(fmt.Sprintf("%dMiB,lazy=%v", test.mib, test.lazy), func(b *testing.B) {
			mib := test.mib
			s := kindSite(b)
			s.begin(b, "forks", fmt.Sprintf("%d 0", mib<<20))
			file, err := dump.OpenFile(s.snapshot())
			if err != nil {
				b.Fatal(err)
			}
			defer file.Close()
			s.file, s.lazy = file.File(), test.lazy
			var took time.Duration
			for b.Loop() {
				s.end()
				set, err := recordset.Load(file.Snapshot)
				if err != nil {
					b.Fatal(err)
				}
				plan, err := restore.Prepare(file.Snapshot, set)
				if err != nil {
					b.Fatal(err)
				}
				begin := time.Now()
				if err := s.into(b.Context(), plan, set); err != nil {
					b.Fatal(err)
				}
				took += time.Since(begin)
				if test.lazy {
					s.awaitFilled()
				}
			}
			b.ReportMetric(took.Seconds()*1000/float64(b.N), "ms/restore")
			b.SetBytes(int64(mib) << 20)
		})
	}
}
