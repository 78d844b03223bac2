package diff

import (
	"bufio"
	"fmt"
	"io"
)

// shownRanges is how many ranges of an object's pages are shown of each kind, unless all are.
const shownRanges = 16

// Text writes the report as text; full shows all ranges of pages. Nothing is written if there is no difference.
func (r *Report) Text(w io.Writer, full bool) error {
	out := bufio.NewWriter(w)
	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) } // a failure shows in Flush
	fields := func(list []Field) {
		for _, f := range list {
			for _, side := range []struct{ sign, value string }{{"-", f.Old}, {"+", f.New}} {
				if side.value != "" {
					line("    %s %s", side.sign, joined(f.Name, side.value))
				}
			}
		}
	}
	if len(r.Header) > 0 {
		line("~ header")
		fields(r.Header)
	}
	for _, rec := range r.Removed {
		line("- %s", rec)
	}
	for _, rec := range r.Added {
		line("+ %s", rec)
	}
	for _, c := range r.Changed {
		line("~ %s", c.Record)
		fields(c.Fields)
	}
	for _, p := range r.Pages {
		line("~ pages of %s: %d changed, %d added, %d removed", p.Record, p.Changed, p.Added, p.Removed)
		for _, kind := range []struct {
			sign   string
			ranges Ranges
		}{{"~", p.ChangedRanges}, {"+", p.AddedRanges}, {"-", p.RemovedRanges}} {
			for i, one := range kind.ranges {
				if i == shownRanges && !full {
					line("    %s and %d more", kind.sign, len(kind.ranges)-i)
					break
				}
				line("    %s %v", kind.sign, one)
			}
		}
	}
	return out.Flush()
}

// String gives the key of a record and what it is about.
func (r Record) String() string {
	if r.About == "" {
		return r.Key.String()
	}
	return fmt.Sprintf("%s (%s)", r.Key, r.About)
}

func joined(name, value string) string {
	if name == "" {
		return value
	}
	return name + " " + value
}
