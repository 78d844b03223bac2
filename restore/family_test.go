package restore_test

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vps/account"
	"vps/dump"
	"vps/snapshot"
)

// TestFamily restores processes that share pages: they share them again, and none sees what another one writes.
func TestFamily(t *testing.T) {
	s := kindSite(t)
	s.begin(t, "family", "")
	before := s.pss()
	path := s.snapshot()
	s.end()
	s.restore(shareEqual(t, path))
	after := s.pss()
	s.verdict()
	if after > before+before/10 {
		t.Errorf("%d KiB of memory before, %d after", before>>10, after>>10)
	}
	t.Logf("%d KiB before, %d after", before>>10, after>>10)
}

// TestForks restores a large process with fifty children that have all of its memory, in little more than that, and with a
// limit a little above what the instance had.
func TestForks(t *testing.T) {
	s := kindSite(t)
	const size, children = 200 << 20, 50
	s.begin(t, "forks", fmt.Sprintf("%d %d", size, children))
	before := s.phys()
	s.copy = snapshot.Frozen // what is copied in rounds is shared less
	path := s.snapshot()
	s.end()
	s.limits = []account.Limit{{Resource: account.Phys, Hard: before + before/4}}
	s.restore(path)
	used, after := s.pss(), s.phys()
	s.verdict()
	if used > size+(children+20)<<20 {
		t.Errorf("%d KiB of memory", used>>10)
	}
	t.Logf("%d KiB of memory, charged %d, before %d", used>>10, after>>10, before>>10)
}

// phys is what the control group is charged for.
func (s *site) phys() uint64 {
	s.t.Helper()
	usage, err := s.group.Usage()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, u := range usage {
		if u.Resource == account.Phys {
			return u.Current
		}
	}
	s.t.Fatal("memory is not counted")
	return 0
}

// pss is the memory of all processes, each page counted once (proc_pid_smaps(5)).
func (s *site) pss() int {
	s.t.Helper()
	pids, err := s.group.Procs()
	if err != nil {
		s.t.Fatal(err)
	}
	sum := 0
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			s.t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			var kib int
			if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
				sum += kib << 10
			}
		}
	}
	return sum
}

// shareEqual writes a snapshot in which pages that are equal, at the same address in several processes, are the same.
func shareEqual(t testing.TB, path string) string {
	t.Helper()
	in, err := dump.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	shared := filepath.Join(filepath.Dir(path), "shared-"+filepath.Base(path))
	out, err := dump.Create(shared, in.Header(), dump.Plain)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Abort()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	type page struct {
		address uint64
		sum     [sha256.Size]byte
	}
	owners := make(map[page]uint64)
	for _, k := range in.Keys() {
		record, err := in.Record(k)
		must(err)
		message, err := record.Message()
		must(err)
		must(out.Put(k.ID, message))
		own, others := []dump.Range(nil), make(map[uint64][]dump.Range)
		for run, err := range in.Pages(k) {
			must(err)
			if run.Data == nil {
				must(out.WriteZeros(k, []dump.Range{run.Range}))
				continue
			}
			for at := run.Start; at < run.End; at += 4096 {
				r := dump.Range{Start: at, End: at + 4096}
				id := page{at, sha256.Sum256(run.Data[at-run.Start:][:4096])}
				if owner, ok := owners[id]; ok && k.Type == dump.Type_TYPE_MM {
					others[owner] = append(others[owner], r)
				} else {
					owners[id] = k.ID
					own = append(own, r)
				}
			}
		}
		byStart := func(a, b dump.Range) int { return cmp.Compare(a.Start, b.Start) }
		slices.SortFunc(own, byStart)
		must(out.WritePages(k, own, func(buf []byte, ranges []dump.Range) error {
			for _, r := range ranges {
				if err := in.ReadPages(k, r.Start, buf[:r.Len()]); err != nil {
					return err
				}
				buf = buf[r.Len():]
			}
			return nil
		}))
		for owner, ranges := range others {
			slices.SortFunc(ranges, byStart)
			must(out.WriteShared(k, ranges, dump.Key{Type: dump.Type_TYPE_MM, ID: owner}, 0))
		}
	}
	must(out.Commit())
	return shared
}
