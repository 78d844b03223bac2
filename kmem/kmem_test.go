package kmem_test

import (
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/kmem"
)

func open(t *testing.T) *kmem.Reader {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r, err := kmem.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestTask(t *testing.T) {
	w := open(t).Walk()
	tasks := w.Tasks()
	self, ok := tasks[os.Getpid()]
	if !ok {
		t.Fatalf("%d tasks, not this one: %v", len(tasks), w.Err())
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if got := unix.ByteSliceToString(self.Member("comm").Bytes(16)); got != strings.TrimSpace(string(comm)) {
		t.Errorf("comm %q, want %q", got, comm)
	}
	if got := int(self.Member("tgid").Uint()); got <= 0 {
		t.Errorf("tgid %d", got)
	}
	parent := self.Member("real_parent").Deref().Member("tgid").Uint() // it may be any thread
	if want := tasks[os.Getppid()].Member("tgid").Uint(); parent != want {
		t.Errorf("the parent is %d, not %d", parent, want)
	}
	found := false
	for thread := range self.Member("signal").Deref().Member("thread_head").List("task_struct", "thread_node") {
		found = found || thread.Address() == self.Address()
	}
	if !found || w.Err() != nil {
		t.Errorf("not in the list of its threads: %v", w.Err())
	}
}

func TestFile(t *testing.T) {
	w := open(t).Walk()
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	inode := w.File(int(f.Fd())).Member("f_inode").Deref()
	if got := inode.Member("i_size").Uint(); got != uint64(info.Size()) || w.Err() != nil {
		t.Errorf("a file of %d bytes, not %d: %v", got, info.Size(), w.Err())
	}
}

func TestPID(t *testing.T) {
	w := open(t).Walk()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	pid := w.PID(fd)
	if got, want := pid.Address(), w.Tasks()[os.Getpid()].Member("thread_pid").Uint(); got != want || w.Err() != nil {
		t.Errorf("struct pid at %#x, not at %#x: %v", got, want, w.Err())
	}
}

func TestErrorsStay(t *testing.T) {
	for what, walk := range map[string]func(w *kmem.Walk){
		"no such structure": func(w *kmem.Walk) { w.At("task_struct_of_ours", 1) },
		"no such member":    func(w *kmem.Walk) { w.At("task_struct", 1).Member("comm", "length").Uint() },
		"no pointer":        func(w *kmem.Walk) { w.At("task_struct", 1).Member("comm").Deref().Uint() },
		"no array":          func(w *kmem.Walk) { w.At("task_struct", 1).Member("tgid").Index(3).Uint() },
		"no memory":         func(w *kmem.Walk) { w.At("task_struct", 64).Member("tgid").Uint() },
	} {
		r := open(t)
		w := r.Walk()
		walk(w)
		first := w.Err()
		if first == nil {
			t.Errorf("%s: no error", what)
		}
		if v := w.At("task_struct", 64).Member("tgid").Uint(); v != 0 || w.Err() != first {
			t.Errorf("%s: then %d, %v", what, v, w.Err())
		}
	}
}

func TestMappings(t *testing.T) {
	r := open(t)
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	mem, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	flags := func() uint64 {
		list, err := r.Mappings(pidfd)
		if err != nil {
			t.Fatal(err)
		}
		at := uint64(uintptr(unsafe.Pointer(&mem[0])))
		for _, m := range list {
			if m.Start == at && m.End == at+1<<20 {
				return m.Flags
			}
		}
		t.Fatalf("%#x is not among %d mappings", at, len(list))
		return 0
	}
	const vmRead, vmShared, vmDontCopy = 1 << 0, 1 << 3, 1 << 17 // include/linux/mm.h
	before := flags()
	if before&(vmRead|vmShared) != vmRead|vmShared {
		t.Errorf("flags %#x", before)
	}
	if err := unix.Madvise(mem, unix.MADV_DONTFORK); err != nil {
		t.Fatal(err)
	}
	if got := flags(); got != before|vmDontCopy {
		t.Errorf("flags %#x, then %#x", before, got)
	}
}
