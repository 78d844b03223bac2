// Package kmem reads structures of the running kernel, for what no system call tells of an object: it walks them by the
// kernel's own type information (BTF), reading memory through a BPF program. Nothing is ever written.
//
// What is walked must not change meanwhile: its tasks are stopped.
package kmem

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// chunk is how much one run of the program reads at most.
const chunk = 64 << 10

// Reader reads the kernel's memory. It may be used by several goroutines at once.
type Reader struct {
	types *btf.Spec
	out   *ebpf.Map
	mem   []byte // of out
	read  *ebpf.Program
	tasks *ebpf.Program
	iter  *link.Iter

	mappings *ebpf.Program

	mu sync.Mutex // of mem
}

// Open makes a reader, which takes some 50 ms and needs CAP_BPF, CAP_PERFMON and the kernel's BTF. The caller keeps it as long as
// it can use it, and closes it.
func Open() (*Reader, error) {
	r := &Reader{}
	if err := r.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("reader of kernel memory: %w", err), r.Close())
	}
	return r, nil
}

func (r *Reader) open() error {
	var err error
	if r.types, err = btf.LoadKernelSpec(); err != nil {
		return err
	}
	r.out, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "read_kernel", Type: ebpf.Array, KeySize: 4, ValueSize: chunk, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		return err
	}
	if r.mem, err = unix.Mmap(r.out.FD(), 0, chunk, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map the output: %w", err)
	}
	r.read, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "read_kernel", Type: ebpf.Syscall, Flags: unix.BPF_F_SLEEPABLE, License: "GPL", Instructions: copyProgram(r.out),
	})
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	tasks, err := r.taskProgram()
	if err != nil {
		return err
	}
	r.tasks, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "list_tasks", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task", License: "GPL",
		Instructions: tasks,
	})
	if err != nil {
		return fmt.Errorf("load the iterator over tasks: %w", err)
	}
	if r.iter, err = link.AttachIter(link.IterOptions{Program: r.tasks}); err != nil {
		return fmt.Errorf("attach the iterator over tasks: %w", err)
	}
	return r.openMappings()
}

// Close frees the reader.
func (r *Reader) Close() error {
	var errs []error
	if r.iter != nil {
		errs = append(errs, r.iter.Close())
	}
	if r.mem != nil {
		errs = append(errs, unix.Munmap(r.mem))
	}
	for _, p := range []*ebpf.Program{r.mappings, r.tasks, r.read} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	if r.out != nil {
		errs = append(errs, r.out.Close())
	}
	return errors.Join(errs...)
}

// request is the program's context.
type request struct {
	Address, Size uint64
	Own           uint64 // not 0: the address counts from our own struct task_struct
}

// copyProgram copies what a request asks for to the map: bpf_probe_read_kernel of bpf-helpers(7).
func copyProgram(out *ebpf.Map) asm.Instructions {
	const key = -4 // stack
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R7, asm.R1, 8, asm.DWord),
		asm.LoadMem(asm.R8, asm.R1, 16, asm.DWord),
		asm.JGT.Imm(asm.R7, chunk, "refuse"),
		asm.JEq.Imm(asm.R8, 0, "look up"),
		asm.FnGetCurrentTask.Call(),
		asm.Add.Reg(asm.R6, asm.R0),
		asm.StoreImm(asm.RFP, key, 0, asm.Word).WithSymbol("look up"),
		asm.LoadMapPtr(asm.R1, out.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "refuse"),
		asm.Mov.Reg(asm.R1, asm.R0), asm.Mov.Reg(asm.R2, asm.R7), asm.Mov.Reg(asm.R3, asm.R6),
		asm.FnProbeReadKernel.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, -int32(unix.EINVAL)).WithSymbol("refuse"),
		asm.Return(),
	}
}

// taskProgram writes the address of every task, and its tid as the reader sees it.
func (r *Reader) taskProgram() (asm.Instructions, error) {
	const (
		ctxMeta, ctxTask        = 0, 8 // struct bpf_iter__task
		metaSeq                 = 0    // struct bpf_iter_meta
		task, tid               = -16, -8
		pointer, level          = -24, -32
		taskStruct, pid, number = "task_struct", "pid", "upid"
	)
	w := r.Walk()
	threadPID := int32(w.At(taskStruct, 0).Member("thread_pid").at)
	levelAt, numbers := int32(w.At(pid, 0).Member("level").at), w.At(pid, 0).Member("numbers")
	numberAt, size := int32(numbers.at+w.At(number, 0).Member("nr").at), int32(numbers.Index(1).at-numbers.at)
	read := func(to, size int32) asm.Instructions { // from R3
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, to), asm.Mov.Imm(asm.R2, size), asm.FnProbeReadKernel.Call(),
		}
	}
	p := asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, ctxTask, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, "end"),
		asm.LoadMem(asm.R8, asm.R1, ctxMeta, asm.DWord),
		asm.LoadMem(asm.R8, asm.R8, metaSeq, asm.DWord),
		asm.StoreMem(asm.RFP, task, asm.R7, asm.DWord),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, tid, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, level, asm.R1, asm.DWord),
		// The depth of our own pid namespace says which of a task's numbers is the one that we know.
		asm.FnGetCurrentTask.Call(), asm.Mov.Reg(asm.R3, asm.R0), asm.Add.Imm(asm.R3, threadPID),
	}
	p = append(p, read(pointer, 8)...)
	p = append(p, asm.LoadMem(asm.R3, asm.RFP, pointer, asm.DWord), asm.Add.Imm(asm.R3, levelAt))
	p = append(p, read(level, 4)...)
	p = append(p, asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, threadPID))
	p = append(p, read(pointer, 8)...)
	p = append(p, asm.LoadMem(asm.R9, asm.RFP, level, asm.Word), asm.Mul.Imm(asm.R9, size),
		asm.LoadMem(asm.R3, asm.RFP, pointer, asm.DWord), asm.Add.Imm(asm.R3, numberAt), asm.Add.Reg(asm.R3, asm.R9))
	p = append(p, read(tid, 4)...)
	return append(p,
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, task), asm.Mov.Imm(asm.R3, 16),
		asm.FnSeqWrite.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
		asm.Return(),
	), w.Err()
}

// Read fills buf with what lies at an address.
func (r *Reader) Read(address uint64, buf []byte) error {
	return r.run(request{Address: address}, buf)
}

func (r *Reader) run(q request, buf []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(buf) > 0 {
		n := min(len(buf), chunk)
		q.Size = uint64(n)
		result, err := r.read.Run(&ebpf.RunOptions{Context: q})
		if err == nil && int32(result) < 0 {
			err = unix.Errno(-int32(result))
		}
		if err != nil {
			return fmt.Errorf("read kernel memory at %#x: %w", q.Address, err)
		}
		copy(buf[:n], r.mem)
		buf, q.Address = buf[n:], q.Address+uint64(n)
	}
	return nil
}
