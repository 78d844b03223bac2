package page

import "testing"

const pageSize = 4096

// pages returns a range of n pages from page first on.
func pages(first, n uint64) Range { return Range{first * pageSize, (first + n) * pageSize} }

// TestOverlapsAreCheap has frames that overlap each other in the worst ways, which must not take quadratic time.
func TestOverlapsAreCheap(t *testing.T) {
	const n = 200_000
	descending, nested := &Log{}, &Log{}
	for i := range uint64(n) {
		descending.Add(Extent{Range: pages(n-i, 1), Frame: int(i)})
		nested.Add(Extent{Range: pages(i, 2*(n-i)), Frame: int(i)})
	}
	for _, l := range []*Log{descending, nested} {
		if got := len(l.Extents(pageSize)); got > 2*n {
			t.Errorf("%d entries became %d extents", n, got)
		}
	}
}
