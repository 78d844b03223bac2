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
	for _, mib := range []int{1, 16, 256, 2048} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			s := kindSite(b)
			s.begin(b, "forks", fmt.Sprintf("%d 0", mib<<20))
			file, err := dump.OpenFile(s.snapshot())
			if err != nil {
				b.Fatal(err)
			}
			defer file.Close()
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
			}
			b.ReportMetric(took.Seconds()*1000/float64(b.N), "ms/restore")
			b.SetBytes(int64(mib) << 20)
		})
	}
}
