package memory

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/kmem"
	"vps/linux"
	"vps/object"
)

// Flags knows the words by which smaps names the flags of mappings. Whoever knows them needs no smaps, for which the kernel looks at
// every page: maps, and the flags from the kernel's memory, are there at once. It may be used by several goroutines at once.
type Flags struct {
	kernel *kmem.Reader

	mu    sync.Mutex
	words map[uint64][]string // by the flags of struct vm_area_struct

	settings map[settingBits]*dump.Mm // what a process with these has answered
}

// OpenFlags learns the words from our own mappings, and some that are like those that most programs have.
func OpenFlags(kernel *kmem.Reader) (*Flags, error) {
	f := &Flags{kernel: kernel, words: make(map[uint64][]string), settings: make(map[settingBits]*dump.Mm)}
	close, err := typicalMappings()
	defer close()
	if err == nil {
		err = f.learnOwn()
	}
	if err != nil {
		return nil, fmt.Errorf("flags of mappings: %w", err)
	}
	return f, nil
}

// Read returns the mappings of a process that does not run. Without Flags it reads smaps.
func (f *Flags) Read(p object.Proc) (*AddressSpace, error) {
	if f == nil {
		return ReadAddressSpace(p)
	}
	vmas, err := readMaps(p.Task())
	if err != nil {
		return nil, err
	}
	mappings, err := f.kernel.Mappings(p.PidFD)
	if err != nil {
		return nil, err
	}
	// Of what is locked, smaps also tells how much is there.
	locked := func(v vma) bool { return v.has("lo") }
	if f.name(vmas, mappings) && !slices.ContainsFunc(vmas, locked) {
		return &AddressSpace{p, vmas}, nil
	}
	if vmas, err = readSmaps(p.Task()); err != nil {
		return nil, err
	}
	f.learn(vmas, mappings)
	return &AddressSpace{p, vmas}, nil
}

// ReadRunning is Read for a process that may run, and change its mappings meanwhile.
func (f *Flags) ReadRunning(p object.Proc) (*AddressSpace, error) {
	if f != nil {
		vmas, err := readMaps(p.Host)
		if err != nil {
			return nil, err
		}
		if mappings, err := f.kernel.Mappings(p.PidFD); err == nil && f.name(vmas, mappings) {
			return &AddressSpace{p, vmas}, nil
		}
	}
	return ReadAddressSpace(p)
}

// name fills in the words; false if some are not known.
func (f *Flags) name(vmas []vma, mappings []kmem.Mapping) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return pair(vmas, mappings, func(v *vma, flags uint64) bool {
		words, ok := f.words[flags]
		v.flags = words
		return ok
	})
}

// learn takes note of the words.
func (f *Flags) learn(vmas []vma, mappings []kmem.Mapping) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pair(vmas, mappings, func(v *vma, flags uint64) bool {
		f.words[flags] = v.flags
		return true
	})
}

// pair calls each for every mapping, until it is false, or until the lists differ.
func pair(vmas []vma, mappings []kmem.Mapping, each func(v *vma, flags uint64) bool) bool {
	for i := range vmas {
		v := &vmas[i]
		if v.name == "[vsyscall]" {
			continue // of no process's own
		}
		if len(mappings) == 0 || mappings[0].Start != v.start || mappings[0].End != v.end || !each(v, mappings[0].Flags) {
			return false
		}
		mappings = mappings[1:]
	}
	return len(mappings) == 0
}

// learnOwn learns from those of our own mappings that do not change meanwhile.
func (f *Flags) learnOwn() error {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	before, err := f.kernel.Mappings(pidfd)
	if err != nil {
		return err
	}
	vmas, err := readSmaps(os.Getpid())
	if err != nil {
		return err
	}
	after, err := f.kernel.Mappings(pidfd)
	if err != nil {
		return err
	}
	same := make(map[kmem.Mapping]bool)
	for _, m := range before {
		same[m] = true
	}
	ends := make(map[uint64]kmem.Mapping) // by their starts
	for _, m := range after {
		if same[m] {
			ends[m.Start] = m
		}
	}
	for _, v := range vmas {
		if m, ok := ends[v.start]; ok && m.End == v.end {
			f.words[m.Flags] = v.flags
		}
	}
	return nil
}

// typicalMappings makes mappings as programs have them, without and with a userfaultfd that tracks writes to them.
func typicalMappings() (close func(), err error) {
	var undo []func()
	close = func() {
		for _, f := range undo {
			f()
		}
	}
	uffd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|linux.UFFD_USER_MODE_ONLY, 0, 0)
	tracks := errno == 0 && linux.UffdEnable(int(uffd), linux.UFFD_FEATURE_WP_ASYNC) == nil
	if errno == 0 {
		undo = append(undo, func() { unix.Close(int(uffd)) })
	}
	const prot, kind = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	for _, extra := range []int{0, unix.MAP_NORESERVE, unix.MAP_GROWSDOWN} {
		for _, advice := range []int{unix.MADV_NORMAL, unix.MADV_HUGEPAGE, unix.MADV_NOHUGEPAGE} {
			for _, track := range []bool{false, true} {
				mem, err := unix.Mmap(-1, 0, os.Getpagesize(), prot, kind|extra)
				if err != nil {
					return close, err
				}
				undo = append(undo, func() { unix.Munmap(mem) })
				// What does not work here, a program cannot have either.
				_ = unix.Madvise(mem, advice)
				if track && tracks {
					at := uint64(uintptr(unsafe.Pointer(&mem[0])))
					_ = linux.UffdRegister(int(uffd), at, at+uint64(len(mem)), linux.UFFDIO_REGISTER_MODE_WP)
				}
			}
		}
	}
	return close, nil
}
