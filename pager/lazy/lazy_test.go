package lazy

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vps/dump"
	"vps/linux"
)

// place is where a page is stored.
type place struct{ frame, index int }

// content tells what comes to each address.
func content(extents []dump.Extent) map[uint64]place {
	m := make(map[uint64]place)
	for _, e := range extents {
		for at := e.Start; at < e.End; at += pageSize {
			m[at] = place{e.Frame, e.Index + int((at-e.Start)/pageSize)}
		}
	}
	return m
}

func pages(first, n uint64) dump.Range {
	return dump.Range{Start: first * pageSize, End: (first + n) * pageSize}
}

// TestMemory changes an address space at random, as a process may.
func TestMemory(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const space = 400
	for range 40 {
		m := newMemory(1)
		for at, frame := uint64(0), 0; at < space; frame++ {
			n := 1 + rnd.Uint64N(20)
			if rnd.IntN(3) > 0 {
				m.pages = append(m.pages, dump.Extent{Range: pages(at, n), Frame: frame, Index: rnd.IntN(5)})
			}
			at += n
		}
		want := content(m.pages)
		for range 20 {
			r := pages(rnd.Uint64N(space), 1+rnd.Uint64N(40))
			if rnd.IntN(2) == 0 {
				m.remove(r)
				maps.DeleteFunc(want, func(at uint64, _ place) bool { return at >= r.Start && at < r.End })
			} else {
				to := r.End + rnd.Uint64N(100)*pageSize
				m.move(r.Start, to, r.Len())
				moved := make(map[uint64]place)
				for at, p := range want {
					switch {
					case at >= r.Start && at < r.End:
						moved[at-r.Start+to] = p
					case at >= to && at < to+r.Len():
					default:
						moved[at] = p
					}
				}
				want = moved
			}
			if !maps.Equal(content(m.pages), want) {
				t.Fatalf("%d pages, want %d, or others", len(content(m.pages)), len(want))
			}
			byFrame := make(map[uint64]place)
			for _, e := range m.pages {
				for _, e := range m.of(e.Frame) {
					maps.Copy(byFrame, content([]dump.Extent{e}))
				}
			}
			if !maps.Equal(byFrame, want) {
				t.Fatalf("by frames %d pages, want %d, or others", len(byFrame), len(want))
			}
			at := rnd.Uint64N(space+200) * pageSize
			e, end, ok := m.find(at)
			if p, there := want[at]; ok != there || ok && (place{e.Frame, e.Index + int((at-e.Start)/pageSize)} != p) {
				t.Fatalf("%#x: %v, %v, want %v, %v", at, e, ok, p, there)
			}
			for next := at; !ok && next < min(end, 1<<32); next += pageSize {
				if _, there := want[next]; there {
					t.Fatalf("%#x: nothing up to %#x, but there is at %#x", at, end, next)
				}
			}
		}
	}
}

// TestLog lets a new daemon read what an earlier one, and the keeper, have written.
func TestLog(t *testing.T) {
	log, err := os.OpenFile(filepath.Join(t.TempDir(), "pages"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	err = WriteLog(log, []Memory{
		{Fault: 7, Extents: []dump.Extent{{Range: pages(1, 4), Frame: 3, Index: 2}, {Range: pages(10, 2), Frame: dump.Zero}, {Range: pages(20, 8), Frame: 4}}},
		{Fault: 8, Extents: []dump.Extent{{Range: pages(1, 4), Frame: 3, Index: 2}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	writer := &Filler{log: log}
	from := func(number int) entry { return entry{what: entryFrom, number: number} }
	said := func(event uint8, args ...uint64) entry {
		return entry{what: event, args: [3]uint64(append(args, 0, 0, 0))}
	}
	err = writer.note(
		from(7), said(linux.UFFD_EVENT_PAGEFAULT, 0, 2*pageSize+5), said(linux.UFFD_EVENT_REMOVE, 20*pageSize, 22*pageSize),
		entry{entryFilled, 7, [3]uint64{3}},
		from(7), said(linux.UFFD_EVENT_FORK, 9), said(linux.UFFD_EVENT_REMAP, 22*pageSize, 100*pageSize, 6*pageSize),
		from(9), said(linux.UFFD_EVENT_UNMAP, 0, 2*pageSize),
		entry{what: entryGone, number: 8},
		from(9), said(linux.UFFD_EVENT_FORK, 8),
	)
	if err != nil {
		t.Fatal(err)
	}
	f := &Filler{log: log, poll: -1, memories: make(map[int]*memory), needs: make(map[int]map[*memory]bool), bytes: make(map[int]uint64)}
	faults, err := f.readLog()
	if err != nil {
		t.Fatal(err)
	}
	if len(faults) != 1 || faults[0].memory != f.memories[7] || faults[0].address != 2*pageSize {
		t.Errorf("faults %+v", faults)
	}
	child := []dump.Extent{{Range: pages(2, 3), Frame: 3, Index: 3}, {Range: pages(22, 6), Frame: 4, Index: 2}}
	for number, want := range map[int][]dump.Extent{
		7: {{Range: pages(1, 4), Frame: 3, Index: 2}, {Range: pages(100, 6), Frame: 4, Index: 2}},
		8: child,
		9: child,
	} {
		m := f.memories[number]
		if m == nil || !slices.Equal(m.pages, want) {
			t.Errorf("memory %d: %+v, want %v", number, m, want)
			continue
		}
		if f.needs[3][m] || !f.needs[4][m] {
			t.Errorf("memory %d needs frame 3: %v, frame 4: %v", number, f.needs[3][m], f.needs[4][m])
		}
	}
	if len(f.memories) != 3 || len(f.needs) != 1 {
		t.Errorf("%d memories need %d frames", len(f.memories), len(f.needs))
	}
}
