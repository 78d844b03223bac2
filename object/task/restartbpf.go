package task

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"vps/object"
)

// restartWords is how many words of a restart block are read behind its function: all of its union.
const restartWords = 5

// restartLayout is where the running kernel keeps what the reader needs, in bytes; those of the block's fields count from
// the word behind its function.
type restartLayout struct {
	function                          int32 // task_struct.restart_block.fn
	threadPID, level, numbers, number int32 // task_struct.thread_pid, pid.level, pid.numbers, upid.nr
	numberSize                        int32 // sizeof(struct upid)
	clock, rmtp, expires              int32 // restart_block.nanosleep
	hasTimeout, sec, nsec             int32 // restart_block.poll
	futexTime                         int32 // restart_block.futex
}

// RestartReader reads out of the kernel what interrupted calls with a time limit have left (task_struct.restart_block,
// include/linux/restart_block.h), by a BPF iterator over all tasks. It may be used by several goroutines at once.
type RestartReader struct {
	layout restartLayout
	prog   *ebpf.Program
	iter   *link.Iter
}

// OpenRestartReader loads the iterator, which takes some 100 ms and needs CAP_BPF, CAP_PERFMON and the kernel's BTF. The
// caller keeps the reader as long as it can use it, and closes it.
func OpenRestartReader() (*RestartReader, error) {
	layout, err := readRestartLayout()
	if err != nil {
		return nil, fmt.Errorf("restart blocks: %w", err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "restart_blocks", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task",
		License: "GPL", Instructions: layout.program(),
	})
	if err != nil {
		return nil, fmt.Errorf("load iterator over restart blocks: %w", err)
	}
	iter, err := link.AttachIter(link.IterOptions{Program: prog})
	if err != nil {
		prog.Close()
		return nil, fmt.Errorf("attach iterator over restart blocks: %w", err)
	}
	return &RestartReader{layout, prog, iter}, nil
}

// Close frees the iterator.
func (r *RestartReader) Close() error { return errors.Join(r.iter.Close(), r.prog.Close()) }

// restartBlock is what the kernel knows about a thread's interrupted call.
type restartBlock struct {
	tid      int
	function string // that goes on with it
	data     []byte // little endian
}

// blocks calls visit for every thread that can be seen from here.
func (r *RestartReader) blocks(visit func(restartBlock)) error {
	text, err := r.iter.Open()
	if err != nil {
		return fmt.Errorf("read restart blocks: %w", err)
	}
	defer text.Close()
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 2+restartWords {
			return fmt.Errorf("read restart blocks: line %q", lines.Text())
		}
		p := object.FieldParser{}
		b := restartBlock{tid: p.Int(f[0]), function: f[1]}
		for _, word := range f[2:] {
			b.data = binary.LittleEndian.AppendUint64(b.data, p.Uint(word, 16))
		}
		if p.Err != nil {
			return fmt.Errorf("read restart blocks: %w", p.Err)
		}
		visit(b)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read restart blocks: %w", err)
	}
	return nil
}

// program writes a line for every task: its tid as the reader sees it, the name of the function and the words behind.
func (l *restartLayout) program() asm.Instructions {
	const (
		ctxMeta, ctxTask = 0, 8 // struct bpf_iter__task
		metaSeq          = 0    // struct bpf_iter_meta
		data             = -128 // stack: tid, function, words
		pointer, level   = -136, -144
		format           = -192
	)
	text := "%d %ps" + strings.Repeat(" %llx", restartWords) + "\n\x00"
	for len(text)%8 != 0 {
		text += "\x00"
	}
	read := func(to int32, size int32) asm.Instructions { // from R3
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, to), asm.Mov.Imm(asm.R2, size), asm.FnProbeReadKernel.Call(),
		}
	}
	p := asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, ctxTask, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, "end"),
		asm.LoadMem(asm.R8, asm.R1, ctxMeta, asm.DWord),
		asm.LoadMem(asm.R8, asm.R8, metaSeq, asm.DWord),
	}
	p = append(p, asm.Mov.Imm(asm.R1, 0))
	for at := format; at < 0; at += 8 {
		p = append(p, asm.StoreMem(asm.RFP, int16(at), asm.R1, asm.DWord))
	}
	// The depth of our own pid namespace says which of a task's numbers is the one that we know.
	p = append(p, asm.FnGetCurrentTask.Call(), asm.Mov.Reg(asm.R3, asm.R0), asm.Add.Imm(asm.R3, l.threadPID))
	p = append(p, read(pointer, 8)...)
	p = append(p, asm.LoadMem(asm.R3, asm.RFP, pointer, asm.DWord), asm.Add.Imm(asm.R3, l.level))
	p = append(p, read(level, 4)...)
	p = append(p, asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, l.threadPID))
	p = append(p, read(pointer, 8)...)
	p = append(p, asm.LoadMem(asm.R9, asm.RFP, level, asm.Word), asm.Mul.Imm(asm.R9, l.numberSize),
		asm.LoadMem(asm.R3, asm.RFP, pointer, asm.DWord), asm.Add.Imm(asm.R3, l.numbers+l.number), asm.Add.Reg(asm.R3, asm.R9))
	p = append(p, read(data, 4)...)
	p = append(p, asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, l.function))
	p = append(p, read(data+8, 8+8*restartWords)...)
	for i := 0; i < len(text); i += 8 {
		p = append(p, asm.LoadImm(asm.R1, int64(binary.LittleEndian.Uint64([]byte(text[i:]))), asm.DWord),
			asm.StoreMem(asm.RFP, int16(format+i), asm.R1, asm.DWord))
	}
	return append(p,
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, format), asm.Mov.Imm(asm.R3, int32(len(text))),
		asm.Mov.Reg(asm.R4, asm.RFP), asm.Add.Imm(asm.R4, data), asm.Mov.Imm(asm.R5, 8*(2+restartWords)),
		asm.FnSeqPrintf.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return(),
	)
}

// readRestartLayout asks the kernel's own type information.
func readRestartLayout() (restartLayout, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return restartLayout{}, err
	}
	f := fieldFinder{spec: spec}
	block := f.offset("task_struct", "restart_block")
	function := f.offset("restart_block", "fn")
	field := func(path ...string) int32 { return f.offset("restart_block", path...) - function - 8 }
	l := restartLayout{
		function:  block + function,
		threadPID: f.offset("task_struct", "thread_pid"),
		level:     f.offset("pid", "level"), numbers: f.offset("pid", "numbers"), number: f.offset("upid", "nr"),
		clock: field("nanosleep", "clockid"), rmtp: field("nanosleep", "rmtp"), expires: field("nanosleep", "expires"),
		hasTimeout: field("poll", "has_timeout"),
		futexTime:  field("futex", "time"),
	}
	if f.has("restart_block", "poll", "end_time") { // newer kernels
		l.sec, l.nsec = field("poll", "end_time", "tv_sec"), field("poll", "end_time", "tv_nsec")
	} else {
		l.sec, l.nsec = field("poll", "tv_sec"), field("poll", "tv_nsec")
	}
	l.numberSize = f.size("upid")
	for _, at := range []int32{l.clock, l.rmtp, l.expires, l.hasTimeout, l.sec, l.nsec, l.futexTime} {
		if f.err == nil && (at < 0 || at > 8*restartWords-8) {
			f.err = fmt.Errorf("a field of the restart block lies at %d", at)
		}
	}
	return l, f.err
}

// fieldFinder finds fields in the kernel's structures, and keeps the first mistake.
type fieldFinder struct {
	spec *btf.Spec
	err  error
}

func (f *fieldFinder) structure(name string) *btf.Struct {
	var s *btf.Struct
	if err := f.spec.TypeByName(name, &s); err != nil {
		if f.err == nil {
			f.err = fmt.Errorf("struct %s: %w", name, err)
		}
		return &btf.Struct{}
	}
	return s
}

func (f *fieldFinder) size(name string) int32 { return int32(f.structure(name).Size) }

// has tells whether a structure has a field of a field.
func (f *fieldFinder) has(name string, path ...string) bool {
	probe := fieldFinder{spec: f.spec}
	probe.offset(name, path...)
	return probe.err == nil
}

// offset returns where a field of a field of a structure lies, in bytes.
func (f *fieldFinder) offset(name string, path ...string) int32 {
	var t btf.Type = f.structure(name)
	sum := uint32(0)
	for _, p := range path {
		m, at, ok := member(t, p)
		if !ok {
			if f.err == nil {
				f.err = fmt.Errorf("struct %s has no %v", name, path)
			}
			return 0
		}
		t, sum = m, sum+at
	}
	return int32(sum)
}

// member finds a member by name, in anonymous members too.
func member(t btf.Type, name string) (btf.Type, uint32, bool) {
	var members []btf.Member
	switch s := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	}
	for _, m := range members {
		if m.Name == name {
			return m.Type, m.Offset.Bytes(), true
		}
		if m.Name == "" {
			if t, at, ok := member(m.Type, name); ok {
				return t, m.Offset.Bytes() + at, true
			}
		}
	}
	return nil, 0, false
}
