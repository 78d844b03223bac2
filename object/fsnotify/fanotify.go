package fsnotify

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/file"
	"vps/remote"
)

// fanotifyMarks lists the marks of a group. Those of whole mounts and file systems are refused.
func fanotifyMarks(l *file.Look) ([]mark, error) {
	for _, other := range []string{"mnt_id", "sdev", "mnt_ns"} {
		if len(l.Lines("fanotify "+other)) > 0 {
			return nil, l.At.Refusal("fanotify", "watches a whole mount, file system or namespace")
		}
	}
	var marks []mark
	for _, line := range l.Lines("fanotify ino") {
		var m mark
		var w where
		_, err := fmt.Sscanf(line, "%x sdev:%x mflags:%x mask:%x ignored_mask:%x fhandle-bytes:%x fhandle-type:%x f_handle:%s",
			&m.Ino, &w.dev, &m.flags, &m.mask, &m.ignored, &w.length, &w.kind, &w.handle)
		if err == nil {
			err = m.locate(w)
		}
		if err != nil {
			return nil, fmt.Errorf("fdinfo of fanotify: line %q: %w", line, err)
		}
		marks = append(marks, m)
	}
	return marks, nil
}

func dumpFanotify(f *file.OpenFile, l *file.Look, marks []mark, refs []*dump.FileRef) error {
	record := &dump.Fanotify{}
	line := l.Line("fanotify flags")
	if _, err := fmt.Sscanf(line, "%x event-flags:%x", &record.Flags, &record.EventFlags); err != nil {
		return fmt.Errorf("fdinfo of fanotify: flags %q: %w", line, err)
	}
	for i, m := range marks {
		record.Marks = append(record.Marks, &dump.FanotifyMark{
			Flags: m.flags, Mask: uint64(m.mask), Ignored: uint64(m.ignored), File: refs[i],
		})
	}
	f.Record.Kind = &dump.File_Fanotify{Fanotify: record}
	return nil
}

// restoreFanotify makes a group that watches nothing yet.
func (r *restorer) restoreFanotify(s *remote.Script, f *dump.File, fd int) error {
	for _, m := range f.GetFanotify().GetMarks() {
		const known = unix.FAN_MARK_IGNORED_SURV_MODIFY | unix.FAN_MARK_EVICTABLE | unix.FAN_MARK_IGNORE
		if m.GetFlags()&^known != 0 {
			return fmt.Errorf("a mark with flags %#x", m.GetFlags())
		}
		if err := checkTarget(m.GetFile()); err != nil {
			return err
		}
	}
	b := s.Room(1024)
	b.Call("fanotify_init", unix.SYS_FANOTIFY_INIT, f.GetFanotify().GetFlags()&^unix.FAN_CLOEXEC, f.GetFanotify().GetEventFlags())
	r.Settle(b, fd)
	return nil
}

// mark adds a mark.
func (r *restorer) mark(group *os.File, m *dump.FanotifyMark) error {
	target, done, err := r.target(m.GetFile())
	if err != nil {
		return err
	}
	defer done()
	name := "/proc/self/fd/" + strconv.Itoa(int(target.Fd()))
	flags := uint(unix.FAN_MARK_ADD | m.GetFlags()&unix.FAN_MARK_EVICTABLE)
	if m.GetMask() != 0 {
		if err := unix.FanotifyMark(int(group.Fd()), flags, m.GetMask(), unix.AT_FDCWD, name); err != nil {
			return err
		}
	}
	if m.GetIgnored() == 0 {
		return nil
	}
	flags |= uint(m.GetFlags())
	if m.GetFlags()&unix.FAN_MARK_IGNORE == 0 {
		flags |= unix.FAN_MARK_IGNORED_MASK
	}
	return unix.FanotifyMark(int(group.Fd()), flags, m.GetIgnored(), unix.AT_FDCWD, name)
}
