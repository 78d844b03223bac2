// Package core makes core files, core(5), of the processes in a snapshot, for a debugger to open.
package core

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"vps/dump"
	"vps/remote"
)

// process is what a core file is made of.
type process struct {
	s        *dump.Snapshot
	pageSize uint64
	record   *dump.Process
	threads  []*dump.Thread // the leader first
	mm       *dump.Mm
	segments []segment
}

// ErrNoProcess is returned where there is no such process, or none that has memory.
var ErrNoProcess = errors.New("no such process in the snapshot")

// Write writes the core file of a process to w. Pages that the process shares with the files that it maps are not in the
// snapshot, nor in the core file: a debugger reads them from the files.
func Write(ctx context.Context, w io.Writer, s *dump.Snapshot, pid uint32) error {
	p, err := load(s, pid)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 256<<10)
	if _, err := out.Write(p.headers(p.notes())); err != nil {
		return err
	}
	if err := p.writeSegments(ctx, out); err != nil {
		return err
	}
	return out.Flush()
}

func load(s *dump.Snapshot, pid uint32) (*process, error) {
	if arch := s.Header().GetArch(); arch != remote.CoreArch {
		return nil, fmt.Errorf("core file of %q: %w", arch, dump.ErrUnsupported)
	}
	p := &process{s: s, pageSize: uint64(s.Header().GetPageSize())}
	var err error
	if p.record, err = dump.Get[*dump.Process](s, uint64(pid)); errors.Is(err, dump.ErrNotFound) {
		return nil, fmt.Errorf("pid %d: %w", pid, ErrNoProcess)
	} else if err != nil {
		return nil, err
	}
	if p.record.GetState() == dump.Process_ZOMBIE {
		return nil, fmt.Errorf("pid %d is a zombie, which has no memory: %w", pid, ErrNoProcess)
	}
	if p.mm, err = dump.Get[*dump.Mm](s, p.record.GetMm()); errors.Is(err, dump.ErrNotFound) {
		return nil, p.corrupt(p.key(dump.Type_TYPE_PROCESS, uint64(pid)), "there is no memory %d", p.record.GetMm())
	} else if err != nil {
		return nil, err
	}
	if err := p.loadThreads(pid); err != nil {
		return nil, err
	}
	p.segments, err = p.layout()
	return p, err
}

func (p *process) loadThreads(pid uint32) error {
	key := p.key(dump.Type_TYPE_PROCESS, uint64(pid))
	seen := make(map[uint32]bool)
	for _, tid := range p.record.GetThreads() {
		t, err := dump.Get[*dump.Thread](p.s, uint64(tid))
		switch {
		case errors.Is(err, dump.ErrNotFound):
			return p.corrupt(key, "there is no thread %d", tid)
		case err != nil:
			return err
		case seen[tid]:
			return p.corrupt(key, "thread %d is there twice", tid)
		}
		seen[tid] = true
		p.threads = append(p.threads, t)
	}
	if len(p.threads) == 0 {
		return p.corrupt(key, "it has no threads")
	}
	return nil
}

func (p *process) key(t dump.Type, id uint64) dump.Key { return dump.Key{Type: t, ID: id} }

// corrupt is what is wrong with a record, with its place in the snapshot.
func (p *process) corrupt(k dump.Key, format string, args ...any) error {
	what := fmt.Sprintf("record %s: %s", k, fmt.Sprintf(format, args...))
	rec, err := p.s.Record(k)
	if err != nil {
		return errors.Join(errors.New(what), err)
	}
	return &dump.FormatError{Offset: rec.Offset, What: what, Class: dump.ErrCorrupt}
}

// extended is what stands in e_phnum for a number that does not fit, PN_XNUM of elf(5): the first section has it.
const extended = 0xffff

// headers returns the file up to its first page of memory.
func (p *process) headers(notes []byte) []byte {
	const ehsize, phsize, shsize = 64, 56, 64
	count := len(p.segments) + 1
	h := elf.Header64{
		Type: uint16(elf.ET_CORE), Machine: uint16(remote.CoreMachine), Version: uint32(elf.EV_CURRENT),
		Phoff: ehsize, Ehsize: ehsize, Phentsize: phsize, Phnum: uint16(min(count, extended)),
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	at := ehsize + uint64(count)*phsize
	if count >= extended {
		h.Shoff, h.Shentsize, h.Shnum = at, shsize, 1
		at += shsize
	}
	var out bytes.Buffer
	put := func(v any) { _ = binary.Write(&out, binary.LittleEndian, v) } // a buffer takes everything
	put(h)
	put(elf.Prog64{Type: uint32(elf.PT_NOTE), Off: at, Filesz: uint64(len(notes)), Align: 4})
	at = (at + uint64(len(notes)) + p.pageSize - 1) &^ (p.pageSize - 1)
	end := at
	for _, s := range p.segments {
		prog := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: s.flags, Off: at, Vaddr: s.Start, Memsz: s.Len(), Align: p.pageSize}
		if s.stored {
			prog.Filesz = s.Len()
		}
		put(prog)
		at += prog.Filesz
	}
	if count >= extended {
		put(elf.Section64{Info: uint32(count)})
	}
	out.Write(notes)
	out.Write(make([]byte, end-uint64(out.Len())))
	return out.Bytes()
}
