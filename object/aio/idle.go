package aio

import (
	"fmt"
	"slices"

	"vps/dump"
	"vps/kmem"
	"vps/object"
	"vps/object/file"
)

// Dump reads the contexts of a process, which is stopped, into the record of its address space, in which their rings are. What is
// under way there is likely to end: [object.ErrBusy].
func Dump(kernel *kmem.Reader, p object.Proc, mm *dump.Mm) error {
	var rings []uint64
	for _, m := range mm.GetMappings() {
		if m.GetKind() == dump.Mapping_AIO {
			rings = append(rings, m.GetStart())
		}
	}
	if len(rings) == 0 {
		return nil
	}
	if err := idle(kernel, p, rings); err != nil {
		return err
	}
	for _, m := range mm.GetMappings() {
		if m.GetKind() == dump.Mapping_AIO {
			if err := read(p, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// idle tells whether nothing is under way in the contexts of a process, and whether they are those whose rings it has mapped.
//
// It looks for requests that can be cancelled (IOCB_CMD_POLL), and for direct I/O on the process's files. Others are done when
// io_submit(2) returns, but for IOCB_CMD_FSYNC, which no structure leads to.
func idle(kernel *kmem.Reader, p object.Proc, rings []uint64) error {
	refuse := func(why string) *object.Refusal {
		return &object.Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "asynchronous I/O", Why: why}
	}
	if kernel == nil {
		return refuse("whether it is idle cannot be read without BPF")
	}
	w := kernel.Walk()
	task, ok := w.Tasks()[p.Task()]
	if !ok {
		return fmt.Errorf("asynchronous I/O of pid %d: its task is not found", p.PID)
	}
	busy := func(why string) error { return fmt.Errorf("%w: %w", object.ErrBusy, refuse(why)) }
	contexts := contextsOf(task)
	if w.Err() == nil && len(contexts) != len(rings) {
		return refuse(fmt.Sprintf("%d contexts, of which %d rings are mapped", len(contexts), len(rings)))
	}
	for _, c := range contexts {
		if !slices.Contains(rings, c.Member("user_id").Uint()) && w.Err() == nil {
			return refuse("a context whose ring is not mapped")
		}
		for range c.Member("active_reqs").List("aio_kiocb", "ki_list") {
			return busy("requests wait for files to be ready")
		}
	}
	fds, err := file.Numbers(p.Task())
	if err != nil {
		return err
	}
	for _, fd := range fds {
		inode := task.Member("files").Deref().Member("fdt").Deref().Member("fd").Index(fd).Deref().Member("f_inode").Deref()
		if inode.Member("i_dio_count", "counter").Uint() != 0 {
			return busy("direct I/O is under way")
		}
	}
	if err := w.Err(); err != nil {
		return fmt.Errorf("asynchronous I/O of pid %d: %w", p.PID, err)
	}
	return nil
}

// contextsOf lists the struct kioctx of a process.
func contextsOf(task kmem.Value) []kmem.Value {
	table := task.Member("mm").Deref().Member("ioctx_table").Deref()
	if table.Null() {
		return nil
	}
	const most = 1 << 16
	var list []kmem.Value
	for i := range min(int(table.Member("nr").Uint()), most) {
		if c := table.Member("table").Index(i).Deref(); !c.Null() {
			list = append(list, c)
		}
	}
	return list
}
