package pager

import (
	"math/rand/v2"
	"testing"

	"vps/dump"
)

// pages is a set of page numbers below 64.
type pages uint64

func (p pages) ranges() []dump.Range {
	var list []dump.Range
	for i := range uint64(64) {
		if p>>i&1 == 1 {
			list = appendRange(list, i*pageSize, (i+1)*pageSize)
		}
	}
	return list
}

func pagesOf(t *testing.T, list []dump.Range) (p pages) {
	t.Helper()
	last := uint64(0)
	for i, r := range list {
		if r.Start >= r.End || i > 0 && r.Start < last {
			t.Fatalf("ranges %v", list)
		}
		for at := r.Start; at < r.End; at += pageSize {
			p |= 1 << (at / pageSize)
		}
		last = r.End
	}
	return p
}

func TestRanges(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		a, b := pages(rnd.Uint64()&rnd.Uint64()), pages(rnd.Uint64()|rnd.Uint64())
		if rnd.IntN(2) == 0 {
			a, b = b, a
		}
		if got := pagesOf(t, union(a.ranges(), b.ranges())); got != a|b {
			t.Fatalf("%b and %b: %b", a, b, got)
		}
		if got := pagesOf(t, subtract(a.ranges(), b.ranges())); got != a&^b {
			t.Fatalf("%b without %b: %b", a, b, got)
		}
		if got := pagesOf(t, intersect(a.ranges(), b.ranges())); got != a&b {
			t.Fatalf("%b in %b: %b", a, b, got)
		}
		var all pages
		size := 1 + rnd.Uint64N(9)
		for _, part := range split(a.ranges(), size*pageSize) {
			p := pagesOf(t, part)
			if p&all != 0 || length(part) > size*pageSize {
				t.Fatalf("%b in parts of %d: %v", a, size, part)
			}
			all |= p
		}
		if all != a {
			t.Fatalf("%b in parts: %b", a, all)
		}
	}
}
