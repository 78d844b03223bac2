package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report makes a Markdown table of the results.
func report(l *lab, rounds int, results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s.\n", time.Now().UTC().Format(time.DateOnly), machine())
	for _, v := range l.versions() {
		fmt.Fprintf(&b, "%s.\n", v)
	}
	fmt.Fprintf(&b, "min / median / max of %d rounds in which the contenders take turns, after one that does not count.\n\n", rounds)
	fmt.Fprintf(&b, "| what | who | min / median / max | times ours | goal |\n|---|---|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.step, r.who, r.spread(), r.ratio(results), r.verdict(results))
	}
	return b.String()
}

// Lines between which a file has the report.
const (
	reportBegin = "<!-- make bench: begin -->\n"
	reportEnd   = "<!-- make bench: end -->\n"
)

// putReport puts the report into a file, in place of the one that is there, or at the end.
func putReport(path, text string) error {
	page, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, rest, _ := strings.Cut(string(page), reportBegin)
	_, after, _ := strings.Cut(rest, reportEnd)
	return os.WriteFile(path, []byte(before+reportBegin+text+reportEnd+after), 0o644)
}

func (r result) spread() string {
	return figure(slices.Min(r.values)) + " / " + figure(r.median()) + " / " + figure(slices.Max(r.values))
}

func (r result) median() float64 {
	v := slices.Sorted(slices.Values(r.values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// ratio is this contender's median in units of ours.
func (r result) ratio(all []result) string {
	own, ok := find(all, r.step, us)
	if !ok || own.median() == 0 {
		return ""
	}
	return figure(r.median() / own.median())
}

// verdict says what our goal is and whether it is met.
func (r result) verdict(all []result) string {
	if r.who != us {
		return ""
	}
	var parts []string
	judge := func(what string, limit float64) {
		word := "met"
		if r.median() > limit {
			word = "missed"
		}
		parts = append(parts, what+": "+word)
	}
	if r.goal.below > 0 {
		judge("< "+figure(r.goal.below), r.goal.below)
	}
	if r.goal.faster > 0 {
		what := fmt.Sprintf("%s× faster than %s", figure(r.goal.faster), r.goal.rival)
		step := r.step
		if r.goal.rivalStep != "" {
			step = r.goal.rivalStep
			what += "'s " + step
		}
		if rival, ok := find(all, step, r.goal.rival); ok {
			judge(what, rival.median()/r.goal.faster)
		} else {
			parts = append(parts, what+": not measured")
		}
	}
	return strings.Join(parts, ", ")
}

func find(all []result, step, who string) (result, bool) {
	i := slices.IndexFunc(all, func(r result) bool { return r.step == step && r.who == who })
	if i < 0 {
		return result{}, false
	}
	return all[i], true
}

// figure prints two significant digits or all before the point.
func figure(x float64) string {
	switch {
	case x < 0.995:
		return fmt.Sprintf("%.2f", x)
	case x < 9.95:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0")
	}
	return fmt.Sprintf("%.0f", x)
}

func machine() string {
	var u unix.Utsname
	kernel := "Linux"
	if unix.Uname(&u) == nil {
		kernel += " " + unix.ByteSliceToString(u.Release[:])
	}
	model := "unknown CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	var si unix.Sysinfo_t
	memory := ""
	if unix.Sysinfo(&si) == nil {
		memory = fmt.Sprintf(", %d GiB", si.Totalram*uint64(si.Unit)>>30)
	}
	return fmt.Sprintf("%s, %d cores of %s%s", kernel, runtime.NumCPU(), model, memory)
}
