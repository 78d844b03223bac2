package core

import (
	"bytes"
	"encoding/binary"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

// noteWriter collects notes, each one a name, a type and a description (elf(5)).
type noteWriter struct{ bytes.Buffer }

const (
	nameCore  = "CORE\x00"
	nameLinux = "LINUX\x00"
)

func (w *noteWriter) note(name string, kind uint32, parts ...any) {
	var desc bytes.Buffer
	for _, part := range parts {
		_ = binary.Write(&desc, binary.LittleEndian, part) // a buffer takes everything
	}
	if desc.Len() == 0 {
		return
	}
	_ = binary.Write(w, binary.LittleEndian, [3]uint32{uint32(len(name)), uint32(desc.Len()), kind})
	w.WriteString(name)
	w.pad()
	w.Write(desc.Bytes())
	w.pad()
}

func (w *noteWriter) pad() {
	for w.Len()%4 != 0 {
		w.WriteByte(0)
	}
}

// notes returns the notes in the kernel's order (fs/binfmt_elf.c): what is the process's stands among those of its leader.
func (p *process) notes() []byte {
	var w noteWriter
	for i, t := range p.threads {
		p.status(&w, t)
		if i == 0 {
			w.note(nameCore, linux.NT_PRPSINFO, p.info(t))
			w.note(nameCore, linux.NT_AUXV, p.mm.GetAuxv())
			w.note(nameCore, linux.NT_FILE, p.files())
		}
		fp, all := remote.CoreFloatingPoint(t.GetXstate())
		w.note(nameCore, linux.NT_PRFPREG, fp)
		w.note(nameLinux, linux.NT_X86_XSTATE, all)
	}
	return w.Bytes()
}

func (p *process) status(w *noteWriter, t *dump.Thread) {
	status := linux.ElfPrstatus{
		Sigpend: signals(p.record.GetPending()) | signals(t.GetPending()), Sighold: t.GetSigmask(),
		Pid: int32(t.GetTid()), Ppid: int32(p.record.GetPpid()), Pgrp: int32(p.record.GetPgid()), Sid: int32(p.record.GetSid()),
	}
	if p.record.GetState() == dump.Process_STOPPED {
		status.Cursig = int16(p.record.GetStopSignal())
		status.Signo = int32(p.record.GetStopSignal())
	}
	var valid int32
	if fp, _ := remote.CoreFloatingPoint(t.GetXstate()); fp != nil {
		valid = 1
	}
	w.note(nameCore, linux.NT_PRSTATUS, &status, remote.CoreRegisters(t.GetRegs()), [2]int32{valid})
}

// signals returns the set of the signals of a queue of siginfo_t, whose first int is the number.
func signals(queue []([]byte)) (set uint64) {
	for _, info := range queue {
		if len(info) >= 4 {
			if n := binary.LittleEndian.Uint32(info); n >= 1 && n <= 64 {
				set |= 1 << (n - 1)
			}
		}
	}
	return set
}

// info returns what ps(1) would show.
func (p *process) info(leader *dump.Thread) *linux.ElfPrpsinfo {
	creds := leader.GetCreds()
	info := &linux.ElfPrpsinfo{
		Sname: 'R', Nice: int8(leader.GetSched().GetNice()), Uid: creds.GetUid(), Gid: creds.GetGid(),
		Pid: int32(p.record.GetPid()), Ppid: int32(p.record.GetPpid()), Pgrp: int32(p.record.GetPgid()), Sid: int32(p.record.GetSid()),
	}
	if p.record.GetState() == dump.Process_STOPPED {
		info.State, info.Sname = 3, 'T'
	}
	copy(info.Fname[:len(info.Fname)-1], leader.GetComm())
	copy(info.Psargs[:len(info.Psargs)-1], p.arguments(len(info.Psargs)-1))
	return info
}

// arguments returns the begin of the command line, with spaces for the NULs between its words. Where it is not to be
// had there is none.
func (p *process) arguments(most int) []byte {
	start, end := p.mm.GetArgStart(), p.mm.GetArgEnd()
	if start >= end {
		return nil
	}
	args := make([]byte, 0, most)
	key := p.key(dump.Type_TYPE_MM, p.mm.GetId())
	page := make([]byte, p.pageSize)
	for uint64(len(args)) < min(end-start, uint64(most)) {
		at := start + uint64(len(args))
		if err := p.s.ReadPages(key, at&^(p.pageSize-1), page); err != nil {
			break // it is shown as far as it was touched
		}
		part := page[at&(p.pageSize-1):]
		args = append(args, part[:min(uint64(len(part)), end-at, uint64(most-len(args)))]...)
	}
	return bytes.ReplaceAll(bytes.TrimRight(args, "\x00"), []byte{0}, []byte{' '})
}

// files returns the note of mapped files: how many there are and the size of a page, of each one start, end and offset
// in pages, then the names.
func (p *process) files() []byte {
	var places, names bytes.Buffer
	count := uint64(0)
	for _, m := range p.mm.GetMappings() {
		if m.GetKind() != dump.Mapping_FILE {
			continue
		}
		count++
		_ = binary.Write(&places, binary.LittleEndian, [3]uint64{m.GetStart(), m.GetEnd(), m.GetOffset() / p.pageSize})
		name, _, _ := bytes.Cut([]byte(m.GetFile().GetPath()), []byte{0})
		names.Write(append(name, 0))
	}
	if count == 0 {
		return nil
	}
	b := binary.LittleEndian.AppendUint64(nil, count)
	b = binary.LittleEndian.AppendUint64(b, p.pageSize)
	return append(append(b, places.Bytes()...), names.Bytes()...)
}
