package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"vps/instance"
)

// Schema is the version of the JSON documents. It changes when something in them changes its meaning or goes.
const Schema = 1

// JSONFlag gives a verb --json.
func (c *IO) JSONFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&c.JSON, "json", false, "print a JSON document")
	return cmd
}

// Document prints a JSON document: the schema's version, and one thing by its name.
func (c *IO) Document(name string, value any) error { return DocumentTo(c.Stdout, name, value) }

// DocumentTo is Document to another place.
func DocumentTo(w io.Writer, name string, value any) error {
	return encode(w, map[string]any{"schema": Schema, name: value}, "  ")
}

// Encode prints a value as JSON. indent is that of a level; "" for one line.
func (c *IO) Encode(value any, indent string) error { return encode(c.Stdout, value, indent) }

func encode(w io.Writer, value any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(value)
}

// Table prints rows of cells, which are separated by tabs.
func (c *IO) Table(head string, rows []string) error {
	w := tabwriter.NewWriter(c.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	return w.Flush()
}

// Fields prints names and values below each other.
func Fields(out io.Writer, pairs ...string) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", pairs[i], pairs[i+1])
		}
	}
	return w.Flush()
}

// Printable is text that comes out of an instance, without what would play with the reader's terminal.
func Printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// Size is a number of bytes for people.
func Size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// Since is the time from t to now for people, in its two largest units.
func Since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(time.Since(t), 0)
	switch day := 24 * time.Hour; {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// Stamp is a time for people.
func Stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// CPU is processor time for people.
func CPU(ns uint64) string {
	return time.Duration(ns).Round(10 * time.Millisecond).String()
}

// Exit is how an instance ended, for people.
func Exit(s *instance.ExitStatus) string {
	if s == nil {
		return ""
	}
	how := fmt.Sprintf("status %d", s.Code)
	if s.Signal != "" {
		how = s.Signal
	}
	return fmt.Sprintf("%s (%s)", how, s.Reason)
}
