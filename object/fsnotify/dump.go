// Package fsnotify has inotify(7) instances and fanotify(7) groups with what they watch. Events that wait to be read keep one from being
// dumped: nothing can put them back, neither after a restore nor, if somebody read them, into what goes on.
//
// The kernel tells the inodes that are watched by their handles; a watch is restored by a name of its inode, when nothing of the
// restore's own doing is left to be told of.
package fsnotify

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/object/inode"
	"vps/remote"
)

// The links of instances and groups in /proc/PID/fd.
const (
	inotifyLink  = "anon_inode:inotify"
	fanotifyLink = "anon_inode:[fanotify]"
)

func kindOf(link string) (kind string, ok bool) {
	switch link {
	case inotifyLink:
		return "inotify", true
	case fanotifyLink:
		return "fanotify", true
	}
	return "", false
}

// dumper dumps what watches files.
type dumper struct {
	*file.Descriptors
	all []file.Link
}

// NewDumper makes the part of inotify and fanotify in a dump.
func NewDumper(d *file.Descriptors) file.Dumper {
	return &dumper{Descriptors: d}
}

// Claims claims all that watch, and refuses those that watch what has no name.
func (d *dumper) Claims(l *file.Look) (bool, error) {
	if _, ok := kindOf(l.Link); !ok {
		return false, nil
	}
	marks, err := marksOf(l)
	for _, m := range marks {
		if err == nil {
			_, err = d.find(l, m, func(*os.File) (uint64, error) { return 0, nil })
		}
	}
	return true, err
}

// Ask notes all that watch.
func (d *dumper) Ask(_ *remote.Batch, links []file.Link) (answer func(), more bool) {
	for _, l := range links {
		if _, ok := kindOf(l.Text); ok {
			d.all = append(d.all, l)
		}
	}
	return func() {}, false
}

// Busy tells which one has events that wait to be read.
func (d *dumper) Busy() error {
	for _, l := range d.all {
		fd, err := l.Copy()
		if err != nil {
			return err
		}
		waiting, err := unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD
		unix.Close(fd)
		if err == nil && waiting > 0 {
			kind, _ := kindOf(l.Text)
			err = fmt.Errorf("%w: %w", object.ErrBusy, l.Refusal(kind, "events wait to be read"))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Dump notes what is watched. What has come since all were asked is of our own doing.
func (d *dumper) Dump(f *file.OpenFile, l *file.Look) error {
	marks, err := marksOf(l)
	if err != nil {
		return err
	}
	refs := make([]*dump.FileRef, len(marks))
	for i, m := range marks {
		if refs[i], err = d.find(l, m, func(f *os.File) (uint64, error) { return d.Memory(f, f.Name()) }); err != nil {
			return err
		}
	}
	if l.Link == fanotifyLink {
		return dumpFanotify(f, l, marks, refs)
	}
	record := &dump.Inotify{}
	for i, m := range marks {
		record.Watches = append(record.Watches, &dump.InotifyWatch{Wd: m.wd, Mask: m.mask, File: refs[i]})
	}
	f.Record.Kind = &dump.File_Inotify{Inotify: record}
	return nil
}

// Finish has nothing left to do.
func (d *dumper) Finish() error { return nil }

// find finds a name of what is watched, or calls memory if it has none.
func (d *dumper) find(l *file.Look, m mark, memory func(f *os.File) (uint64, error)) (*dump.FileRef, error) {
	f, err := d.Finder().ByHandle(m.Dev, m.handle)
	if err == nil {
		defer f.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return nil, fmt.Errorf("fstat %s: %w", f.Name(), err)
		}
		if st.Nlink == 0 {
			return d.nameless(l, f, &st, memory)
		}
		ref, err := d.Refer(f, f.Name())
		if err == nil && ref.GetDeleted() {
			ref = &dump.FileRef{Path: ref.GetOther(), Ino: st.Ino, Mode: st.Mode}
		}
		if err == nil || !errors.Is(err, object.ErrUnsupported) {
			return ref, err
		}
	}
	name, st, err := d.Finder().ByNumber(m.Number)
	if err != nil {
		kind, _ := kindOf(l.Link)
		return nil, l.At.Refusal(kind, fmt.Sprintf("watch %d is on inode %d of device %d:%d: %v",
			m.wd, m.Ino, unix.Major(m.Dev), unix.Minor(m.Dev), err))
	}
	return &dump.FileRef{Path: name, Ino: st.Ino, Mode: st.Mode}, nil
}

// nameless refers to a file that is deleted: it is open, or would not be watched any more.
func (d *dumper) nameless(l *file.Look, f *os.File, st *unix.Stat_t, memory func(f *os.File) (uint64, error)) (*dump.FileRef, error) {
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		what, _ := kindOf(l.Link)
		return nil, l.At.Refusal(what, "watches "+f.Name())
	}
	fd, err := file.Reopen(int(f.Fd()), f.Name(), unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	readable := os.NewFile(uintptr(fd), f.Name())
	defer readable.Close()
	id, err := memory(readable)
	return &dump.FileRef{Path: f.Name(), Mode: st.Mode, Memory: id}, err
}

// mark is a watch as fdinfo has it (proc_pid_fdinfo(5)).
type mark struct {
	inode.Number
	wd      int32
	flags   uint32
	mask    uint32
	ignored uint32
	handle  unix.FileHandle
}

// marksOf lists the watches of an instance, ascending by wd, or those of a group.
func marksOf(l *file.Look) ([]mark, error) {
	if l.Link == fanotifyLink {
		return fanotifyMarks(l)
	}
	var marks []mark
	for _, line := range l.Lines("inotify wd") {
		var m mark
		var w where
		_, err := fmt.Sscanf(line, "%x ino:%x sdev:%x mask:%x ignored_mask:%x fhandle-bytes:%x fhandle-type:%x f_handle:%s",
			&m.wd, &m.Ino, &w.dev, &m.mask, &m.ignored, &w.length, &w.kind, &w.handle)
		if err == nil {
			err = m.locate(w)
		}
		if err != nil {
			return nil, fmt.Errorf("fdinfo of inotify: line %q: %w", line, err)
		}
		marks = append(marks, m)
	}
	slices.SortFunc(marks, func(a, b mark) int { return int(a.wd) - int(b.wd) })
	return marks, nil
}

// where is what fdinfo tells of a watched inode, beside its number.
type where struct {
	dev          uint32
	length, kind int
	handle       string
}

func (m *mark) locate(w where) error {
	text, err := hex.DecodeString(w.handle)
	if err != nil {
		return fmt.Errorf("handle: %w", err)
	}
	const minorBits = 20 // include/linux/kdev_t.h
	m.Dev = unix.Mkdev(w.dev>>minorBits, w.dev&(1<<minorBits-1))
	m.handle = unix.NewFileHandle(int32(w.kind), text)
	return nil
}
