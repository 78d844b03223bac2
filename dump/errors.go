package dump

import (
	"errors"
	"fmt"
)

// Classes of failure, for errors.Is.
var (
	ErrCorrupt     = errors.New("corrupt snapshot")               // contradicts itself or the format
	ErrTruncated   = errors.New("truncated snapshot")             // ends before its trailer does
	ErrNotSnapshot = errors.New("not a snapshot")                 // does not begin like one
	ErrVersion     = errors.New("newer snapshot format")          // its major version is unknown here
	ErrUnsupported = errors.New("unsupported part of snapshot")   // well formed, but not understood here
	ErrArch        = errors.New("snapshot of another machine")    // architecture or page size differ
	ErrCPU         = errors.New("missing processor feature")      // the instance uses what this machine lacks
	ErrNoPages     = errors.New("snapshot without pages")         // they were left out on purpose
	ErrNotFound    = errors.New("not in the snapshot")            // no such record or page
	ErrLimit       = errors.New("limit of the snapshot format")   // the writer was given more than the format holds
	ErrClosed      = errors.New("snapshot writer is closed")      // used after Close or Abort
	ErrOrder       = errors.New("pages come before their record") // the writer was given them in this order
)

// FormatError is a failure at a place in a snapshot.
type FormatError struct {
	Offset int64  // bytes from the begin of the snapshot
	What   string // what is there, and what is wrong with it
	Class  error  // one of the classes above
}

func (e *FormatError) Error() string { return fmt.Sprintf("snapshot: offset %d: %s", e.Offset, e.What) }

// Unwrap returns the class.
func (e *FormatError) Unwrap() error { return e.Class }

func formatError(class error, off int64, format string, args ...any) error {
	return &FormatError{Offset: off, What: fmt.Sprintf(format, args...), Class: class}
}

func corrupt(off int64, format string, args ...any) error {
	return formatError(ErrCorrupt, off, format, args...)
}
