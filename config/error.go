package config

import (
	"errors"
	"fmt"
	"strings"
)

// Error is one fault in a configuration.
type Error struct {
	File string // "" if the configuration was not read from a file
	Line int    // counted from 1; 0 if the fault is in no line
	Key  string // "" if the fault is in no key
	Msg  string // what is wrong
	Hint string // what to do about it; "" if there is nothing to say
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
		if e.Line > 0 {
			fmt.Fprintf(&b, "%d:", e.Line)
		}
		b.WriteByte(' ')
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Errors returns the faults joined in an error of [Parse], [Load] or [Config.Validate], in order of line.
func Errors(err error) []*Error {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() []error }:
		var all []*Error
		for _, one := range e.Unwrap() {
			all = append(all, Errors(one)...)
		}
		return all
	}
	return Errors(errors.Unwrap(err))
}

func fault(format string, args ...any) *Error { return &Error{Msg: fmt.Sprintf(format, args...)} }

func (e *Error) hint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// didYouMean sets the hint to the candidate nearest to what was written, if any is near.
func (e *Error) didYouMean(written string, candidates []string) *Error {
	if near := nearest(written, candidates); near != "" {
		return e.hint("did you mean %s?", near)
	}
	return e
}

// shown quotes a value for a message. A value of any length may come out of a snapshot file.
func shown(value string) string {
	const most = 80
	if len(value) > most {
		return fmt.Sprintf("%.*q...", most, value)
	}
	return fmt.Sprintf("%q", value)
}

// nearest returns the candidate with the smallest edit distance to s, or "" if that is more than half of s. It does
// not try with what is longer than any slip of the pen.
func nearest(s string, candidates []string) string {
	const most = 64
	if len(s) > most {
		return ""
	}
	best, least := "", len(s)/2+1
	for _, c := range candidates {
		if d := distance(strings.ToUpper(s), strings.ToUpper(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours that make b of a
// (optimal string alignment).
func distance(a, b string) int {
	before, last, this := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		this[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			this[j] = min(last[j]+1, this[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}
