// Package inotify has inotify(7) instances with what they watch. Events that wait to be read keep one from being dumped: nothing
// can put them back.
//
// The kernel tells the inodes that are watched by their handles; a watch is restored by a name of its inode, when nothing of the
// restore's own doing is left to be told of.
package inotify

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

// link is that of every instance in /proc/PID/fd.
const link = "anon_inode:inotify"

// dumper dumps the inotify instances of an instance.
type dumper struct {
	*file.Descriptors
	all []file.Link
}

// NewDumper makes inotify's part of a dump.
func NewDumper(d *file.Descriptors) file.Dumper {
	return &dumper{Descriptors: d}
}

// Claims claims all inotify instances, and refuses those that watch what has no name.
func (d *dumper) Claims(l *file.Look) (bool, error) {
	if l.Link != link {
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

// Ask notes all inotify instances.
func (d *dumper) Ask(_ *remote.Batch, links []file.Link) (answer func(), more bool) {
	for _, l := range links {
		if l.Text == link {
			d.all = append(d.all, l)
		}
	}
	return func() {}, false
}

// Busy tells which instance has events that wait to be read.
func (d *dumper) Busy() error {
	for _, l := range d.all {
		fd, err := l.Copy()
		if err != nil {
			return err
		}
		waiting, err := unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD
		unix.Close(fd)
		if err == nil && waiting > 0 {
			err = fmt.Errorf("%w: %w", object.ErrBusy, l.Refusal("inotify", "events wait to be read"))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Dump notes what an instance watches. What has come since all were asked is of our own doing.
func (d *dumper) Dump(f *file.OpenFile, l *file.Look) error {
	marks, err := marksOf(l)
	if err != nil {
		return err
	}
	record := &dump.Inotify{}
	for _, m := range marks {
		ref, err := d.find(l, m, func(f *os.File) (uint64, error) { return d.Memory(f, f.Name()) })
		if err != nil {
			return err
		}
		record.Watches = append(record.Watches, &dump.InotifyWatch{Wd: m.wd, Mask: m.mask, File: ref})
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
		return nil, l.At.Refusal("inotify", fmt.Sprintf("watch %d is on inode %d of device %d:%d: %v",
			m.wd, m.Ino, unix.Major(m.Dev), unix.Minor(m.Dev), err))
	}
	return &dump.FileRef{Path: name, Ino: st.Ino, Mode: st.Mode}, nil
}

// nameless refers to a file that is deleted: it is open, or would not be watched any more.
func (d *dumper) nameless(l *file.Look, f *os.File, st *unix.Stat_t, memory func(f *os.File) (uint64, error)) (*dump.FileRef, error) {
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil, l.At.Refusal("inotify", "watches "+f.Name())
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
	wd     int32
	mask   uint32
	handle unix.FileHandle
}

// marksOf lists the watches of an instance, ascending by wd.
func marksOf(l *file.Look) ([]mark, error) {
	var marks []mark
	for _, line := range l.Lines("inotify wd") {
		var m mark
		var dev, ignored uint32
		var length, kind int
		var handle string
		_, err := fmt.Sscanf(line, "%x ino:%x sdev:%x mask:%x ignored_mask:%x fhandle-bytes:%x fhandle-type:%x f_handle:%s",
			&m.wd, &m.Ino, &dev, &m.mask, &ignored, &length, &kind, &handle)
		if err != nil {
			return nil, fmt.Errorf("fdinfo of inotify: line %q: %w", line, err)
		}
		text, err := hex.DecodeString(handle)
		if err != nil {
			return nil, fmt.Errorf("fdinfo of inotify: handle %q: %w", handle, err)
		}
		const minorBits = 20 // include/linux/kdev_t.h
		m.Dev = unix.Mkdev(dev>>minorBits, dev&(1<<minorBits-1))
		m.handle = unix.NewFileHandle(int32(kind), text)
		marks = append(marks, m)
	}
	slices.SortFunc(marks, func(a, b mark) int { return int(a.wd) - int(b.wd) })
	return marks, nil
}
