package main

import (
	"os"
	"path/filepath"
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

// A goal may be set by what another step costs the rival.
func TestVerdictOfAnotherStep(t *testing.T) {
	own := result{"w", "gap", us, []float64{5}, goal{faster: 3, rival: "criu", rivalStep: "dump"}}
	all := []result{own, {"w", "gap", "criu", []float64{1}, goal{}}, {"w", "dump", "criu", []float64{16}, goal{}}}
	if got, want := own.verdict(all), "3× faster than criu's dump: met"; got != want {
		t.Errorf("verdict %q, want %q", got, want)
	}
}

func TestReportRow(t *testing.T) {
	results := []result{
		{"w", "step, ms", us, []float64{4, 0.5, 5}, goal{}},
		{"w", "step, ms", "runc", []float64{32, 20, 100, 44}, goal{}},
	}
	text := report(&lab{}, 4, results)
	for _, row := range []string{
		"| step, ms | vpsctl | 0.50 / 4 / 5 | 1 |  |\n",
		"| step, ms | runc | 20 / 38 / 100 | 9.5 |  |\n",
	} {
		if !strings.Contains(text, row) {
			t.Errorf("no row %q in\n%s", row, text)
		}
	}
}

func TestReportIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"old\n", "new\n"} {
		if err := putReport(path, text); err != nil {
			t.Fatal(err)
		}
		page, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		page.WriteString("after " + text)
		page.Close()
	}
	got, err := os.ReadFile(path)
	want := "before\n" + reportBegin + "new\n" + reportEnd + "after old\nafter new\n"
	if err != nil || string(got) != want {
		t.Errorf("%v, page %q, want %q", err, got, want)
	}
}
