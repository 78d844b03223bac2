package kmem

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"vps/linux"
)

// Mapping is a mapping of a process.
type Mapping struct {
	Start, End uint64
	Flags      uint64 // vm_flags of struct vm_area_struct
}

// mappingProgram writes a Mapping for each that an iterator comes to.
func (r *Reader) mappingProgram() (asm.Instructions, error) {
	const (
		ctxMeta, ctxVMA = 0, 16 // struct bpf_iter__task_vma
		metaSeq         = 0     // struct bpf_iter_meta
		out             = -24   // stack
	)
	p := asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, ctxVMA, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, "end"),
		asm.LoadMem(asm.R8, asm.R1, ctxMeta, asm.DWord),
		asm.LoadMem(asm.R8, asm.R8, metaSeq, asm.DWord),
	}
	w := r.Walk()
	for i, name := range []string{"vm_start", "vm_end", "vm_flags"} {
		p = append(p,
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, int32(out+8*i)), asm.Mov.Imm(asm.R2, 8),
			asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, int32(w.At("vm_area_struct", 0).Member(name).at)),
			asm.FnProbeReadKernel.Call())
	}
	return append(p,
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, out), asm.Mov.Imm(asm.R3, 24),
		asm.FnSeqWrite.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
		asm.Return(),
	), w.Err()
}

// Mappings returns the mappings of the process of a pidfd, ascending. Unlike smaps of /proc, that takes no look at its pages.
func (r *Reader) Mappings(pidfd int) ([]Mapping, error) {
	fd, err := linux.BPFIterateProcess(r.mappings.FD(), pidfd)
	if err != nil {
		return nil, fmt.Errorf("list mappings: %w", err)
	}
	f := os.NewFile(uintptr(fd), "mappings")
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("list mappings: %w", err)
	}
	var list []Mapping
	for ; len(text) >= 24; text = text[24:] {
		m := Mapping{binary.LittleEndian.Uint64(text), binary.LittleEndian.Uint64(text[8:]), binary.LittleEndian.Uint64(text[16:])}
		if n := len(list); n > 0 && m.Start < list[n-1].End {
			break // those of another thread with a descriptor table of its own: the same once more
		}
		list = append(list, m)
	}
	return list, nil
}

func (r *Reader) openMappings() error {
	program, err := r.mappingProgram()
	if err != nil {
		return err
	}
	r.mappings, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "list_mappings", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task_vma", License: "GPL",
		Instructions: program,
	})
	if err != nil {
		return fmt.Errorf("load the iterator over mappings: %w", err)
	}
	return nil
}
