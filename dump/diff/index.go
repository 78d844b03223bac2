package diff

import (
	"errors"
	"fmt"

	"vps/dump"
)

// index tells what records are about: what a number means to people.
type index struct {
	s     *dump.Snapshot
	files map[uint64]string // by the id of the File: a process that has it open
}

func newIndex(s *dump.Snapshot) (*index, error) {
	x := &index{s: s, files: make(map[uint64]string)}
	seen := make(map[uint64]bool)
	for process, err := range dump.All[*dump.Process](s) {
		if err != nil {
			return nil, err
		}
		if seen[process.GetFdTable()] {
			continue
		}
		seen[process.GetFdTable()] = true
		table, err := dump.Get[*dump.FdTable](s, process.GetFdTable())
		if errors.Is(err, dump.ErrNotFound) {
			continue // a zombie
		}
		if err != nil {
			return nil, err
		}
		for _, fd := range table.GetFds() {
			if x.files[fd.GetFile()] == "" {
				x.files[fd.GetFile()] = fmt.Sprintf("%s fd %d", x.process(uint64(process.GetPid())), fd.GetFd())
			}
		}
	}
	return x, nil
}

// record names a record.
func (x *index) record(k dump.Key) Record {
	r := Record{Key: k, Type: dump.TypeName(k.Type), ID: k.ID}
	switch k.Type {
	case dump.Type_TYPE_PROCESS, dump.Type_TYPE_MM, dump.Type_TYPE_FD_TABLE, dump.Type_TYPE_SIG_HAND:
		if x.s.Has(dump.Key{Type: dump.Type_TYPE_PROCESS, ID: k.ID}) {
			r.About = x.process(k.ID)
		}
	case dump.Type_TYPE_THREAD:
		if t, err := dump.Get[*dump.Thread](x.s, k.ID); err == nil {
			r.About = fmt.Sprintf("of %s", x.process(uint64(t.GetPid())))
		}
	case dump.Type_TYPE_FILE:
		r.About = x.files[k.ID]
	case dump.Type_TYPE_MEMORY:
		if m, err := dump.Get[*dump.Memory](x.s, k.ID); err == nil && m.GetName() != "" {
			r.About = fmt.Sprintf("%q", m.GetName())
		}
	case dump.Type_TYPE_INODE:
		if m, err := dump.Get[*dump.Inode](x.s, k.ID); err == nil {
			r.About = fmt.Sprintf("%q", m.GetPath())
		}
	case dump.Type_TYPE_MOUNT:
		if m, err := dump.Get[*dump.Mount](x.s, k.ID); err == nil {
			r.About = fmt.Sprintf("%q", m.GetTarget())
		}
	}
	return r
}

// process names a process by its pid and its first thread.
func (x *index) process(pid uint64) string {
	if leader, err := dump.Get[*dump.Thread](x.s, pid); err == nil {
		return fmt.Sprintf("pid %d %q", pid, leader.GetComm())
	}
	return fmt.Sprintf("pid %d", pid)
}
