// Package event has the files that count or tell of events: eventfd(2), timerfd_create(2), signalfd(2).
//
// They are dumped from fdinfo, where the kernel shows all that they are, and made anew by the maker.
package event

import (
	"context"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/file"
	"vps/remote"
)

// dumper dumps the event files of an instance, which have nothing but their descriptors.
type dumper struct{}

// NewDumper makes the event files' part of a dump.
func NewDumper(*file.Descriptors) file.Dumper { return dumper{} }

// kinds are told by the link in /proc/PID/fd.
var kinds = map[string]func(*file.OpenFile, *file.Look) error{
	"anon_inode:[eventfd]":  dumpEventFd,
	"anon_inode:[timerfd]":  dumpTimerFd,
	"anon_inode:[signalfd]": dumpSignalFd,
}

// Claims claims all event files, and refuses timers that wake the machine.
func (dumper) Claims(l *file.Look) (bool, error) {
	if kinds[l.Link] == nil {
		return false, nil
	}
	if clock := l.Line("clockid"); clock == strconv.Itoa(unix.CLOCK_REALTIME_ALARM) || clock == strconv.Itoa(unix.CLOCK_BOOTTIME_ALARM) {
		return true, l.At.Refusal("timerfd that wakes the machine", "")
	}
	return true, nil
}

// Dump fills in what a file counts.
func (dumper) Dump(f *file.OpenFile, l *file.Look) error { return kinds[l.Link](f, l) }

// Finish has nothing left to do.
func (dumper) Finish() error { return nil }

// restorer restores the event files of a set.
type restorer struct{ *file.Files }

// NewRestorer makes the event files' part of a restore.
func NewRestorer(files *file.Files) file.Restorer { return &restorer{files} }

// Claims claims all event files.
func (r *restorer) Claims(f *dump.File) bool {
	switch f.GetKind().(type) {
	case *dump.File_Eventfd, *dump.File_Timerfd, *dump.File_Signalfd:
		return true
	}
	return false
}

// Restore makes an event file.
func (r *restorer) Restore(s *remote.Script, f *dump.File, fd int) error {
	switch f.GetKind().(type) {
	case *dump.File_Eventfd:
		r.restoreEventFd(s, f, fd)
	case *dump.File_Timerfd:
		r.restoreTimerFd(s, f, fd)
	case *dump.File_Signalfd:
		r.restoreSignalFd(s, f, fd)
	}
	return nil
}

// Needs counts nothing: there are no objects behind the files.
func (r *restorer) Needs() int { return 0 }

// Make has nothing to make.
func (r *restorer) Make(*remote.Script) error { return nil }

// Finish has nothing left to do.
func (r *restorer) Finish(context.Context, *remote.Script) error { return nil }

// Close has nothing to close.
func (r *restorer) Close() error { return nil }
