package main

import (
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	own := result{"w", "step", us, []float64{4, 6, 5}, goal{below: 20, faster: 2, rival: "criu"}}
	for _, c := range []struct {
		name  string
		rival []float64
		want  string
	}{
		{"rival twice as slow", []float64{10, 10}, "< 20: met, 2× faster than criu: met"},
		{"rival nearly as fast", []float64{9, 9, 9}, "< 20: met, 2× faster than criu: missed"},
		{"no rival", nil, "< 20: met, 2× faster than criu: not measured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := []result{own}
			if c.rival != nil {
				all = append(all, result{"w", "step", "criu", c.rival, goal{}})
			}
			if got := own.verdict(all); got != c.want {
				t.Errorf("verdict %q, want %q", got, c.want)
			}
		})
	}
}

func TestReportRow(t *testing.T) {
	results := []result{
		{"w", "step, ms", us, []float64{4, 0.5, 5}, goal{}},
		{"w", "step, ms", "runc", []float64{32, 20, 100, 44}, goal{}},
	}
	var b strings.Builder
	if err := writeReport(&b, &lab{}, 4, results); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"| step, ms | vpsctl | 0.50 / 4 / 5 | 1 |  |\n",
		"| step, ms | runc | 20 / 38 / 100 | 9.5 |  |\n",
	} {
		if !strings.Contains(b.String(), row) {
			t.Errorf("no row %q in\n%s", row, b.String())
		}
	}
}
