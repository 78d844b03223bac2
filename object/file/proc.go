package file

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// splitProc finds the process whose directory in /proc a path leads to or through, and what is named there; 0: none.
func splitProc(name string) (pid int, rest string) {
	below, ok := strings.CutPrefix(name, "/proc/")
	if !ok {
		return 0, ""
	}
	number, rest, _ := strings.Cut(below, "/")
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 0 || strconv.Itoa(pid) != number {
		return 0, ""
	}
	return pid, rest
}

// locateProc makes the reference to a file of a process's directory in /proc; nil and no reason: it is not of one. Such a file is the
// process's for ever: it does not become that of another one which gets the same pid.
func (d *Descriptors) locateProc(name string, st *unix.Stat_t) (ref *dump.FileRef, why string) {
	name = strings.TrimSuffix(name, DeletedMark)
	pid, rest := splitProc(name)
	if pid == 0 {
		if !strings.HasPrefix(name, "/proc/") {
			return nil, "of another /proc"
		}
		return nil, ""
	}
	tid := pid
	parts := strings.Split(rest, "/")
	if len(parts) > 1 && parts[0] == "task" {
		tid, _ = strconv.Atoi(parts[1])
		parts = parts[2:]
	}
	if len(parts) > 1 && slices.Contains([]string{"fd", "fdinfo", "map_files"}, parts[0]) {
		return nil, "of a descriptor or a mapping"
	}
	var found unix.Stat_t
	ref = &dump.FileRef{Path: name, Process: uint32(pid), Mode: st.Mode}
	err := unix.Lstat(fmt.Sprintf("/proc/%d/root%s", d.init, name), &found)
	if err == nil && found.Dev == st.Dev && found.Ino == st.Ino {
		return ref, ""
	}
	ref.Deleted = true
	if err == nil && !strings.Contains(rest, "/") {
		return ref, "" // of another process that had this pid
	}
	if d.hasTask(pid) {
		return nil, "not there any more, while a process has this pid"
	}
	if tid != pid {
		return nil, "of a thread of a process that is gone"
	}
	return ref, ""
}

// hasTask tells whether a task of the instance has a pid.
func (d *Descriptors) hasTask(pid int) bool {
	var st unix.Stat_t
	return unix.Lstat(fmt.Sprintf("/proc/%d/root/proc/%d", d.init, pid), &st) == nil
}

// restoreProc opens a file of a process's directory.
func (r *Files) restoreProc(s *remote.Script, f *dump.File, ref *dump.FileRef) error {
	if err := checkProc(ref); err != nil {
		return err
	}
	if ref.GetDeleted() {
		return r.During(s, int(ref.GetProcess()), func() { r.openProc(s, f, ref, r.fds[f.GetId()]) })
	}
	r.Postpone(f, func(s *remote.Script, fd int) {
		r.openProc(s, f, ref, fd)
		r.Verify(func() error { return r.Check(fd, ref, false) })
	})
	return nil
}

// checkProc looks at the path of a reference to a process's directory. That it leads through no magic link is seen when it is opened.
func checkProc(ref *dump.FileRef) error {
	name := ref.GetPath()
	if err := object.CheckPath(name); err != nil {
		return err
	}
	if pid, _ := splitProc(name); pid == 0 || pid != int(ref.GetProcess()) || path.Clean(name) != name {
		return fmt.Errorf("path %q is not of process %d", name, ref.GetProcess())
	}
	return nil
}

func (r *Files) openProc(s *remote.Script, f *dump.File, ref *dump.FileRef, fd int) {
	r.OpenNamed(s, ref.GetPath(), OpenFlags(f.GetFlags()), fd)
	if pos := f.GetPos(); pos != 0 && f.GetFlags()&unix.O_PATH == 0 {
		s.Call("seek in "+ref.GetPath(), unix.SYS_LSEEK, fd, pos, unix.SEEK_SET)
		// What the kernel keeps of the file's content is that of now (fs/seq_file.c). A read from elsewhere, which
		// does not move the offset, has it made again by the next one.
		b := s.Room(512)
		elsewhere := 1 + pos%2
		b.Try("read elsewhere", unix.SYS_PREAD64, fd, b.Space(2), elsewhere, 0)
	}
}
