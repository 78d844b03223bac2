// Package memory has the address space of a process: its mappings and their layout. The pages in them are the pager's; the
// files that are mapped are those of package file.
//
// It is dumped from /proc (smaps, map_files, auxv), and restored by the stub that becomes the process: [Map] lays
// it out, the pager fills it, [Protect] and [Describe] make it what it was.
package memory

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/pager"
	"vps/remote"
)

// AddressSpace is the memory of a process that is being dumped.
type AddressSpace struct {
	object.Proc
	vmas []vma
}

// ReadAddressSpace reads the mappings of a process.
func ReadAddressSpace(p object.Proc) (*AddressSpace, error) {
	vmas, err := readSmaps(p.Task())
	if err != nil {
		return nil, err
	}
	return &AddressSpace{p, vmas}, nil
}

// VDSO returns where the vDSO is mapped; 0, 0 if it is not.
func (a *AddressSpace) VDSO() (start, end uint64) {
	for _, v := range a.vmas {
		if v.name == "[vdso]" {
			return v.start, v.end
		}
	}
	return 0, 0
}

// Probe returns what cannot be dumped.
func (a *AddressSpace) Probe() []error {
	var refusals []error
	for i := range a.vmas {
		if why := a.vmas[i].refused(); why != "" {
			refusals = append(refusals, &object.Refusal{PID: a.PID, Comm: a.Comm, FD: -1,
				Object: fmt.Sprintf("mapping %#x-%#x of %s", a.vmas[i].start, a.vmas[i].end, why)})
		}
	}
	if a.withoutVDSO() {
		refusals = append(refusals, &object.Refusal{PID: a.PID, Comm: a.Comm, FD: -1, Object: "a process without vDSO"})
	}
	return refusals
}

// withoutVDSO tells whether a process that may run has no vDSO; in execve(2) every process has none for a moment.
func (a *AddressSpace) withoutVDSO() bool {
	for range 20 {
		if start, _ := a.VDSO(); start != 0 {
			return false
		}
		time.Sleep(time.Millisecond)
		again, err := ReadAddressSpace(a.Proc)
		if err != nil || len(again.vmas) == 0 {
			return false // it has ended
		}
		a = again
	}
	return true
}

// refused names what a mapping is of, if that cannot be dumped.
func (v *vma) refused() string {
	switch {
	case v.has("ht"):
		return "huge pages (hugetlbfs)"
	case strings.HasPrefix(v.name, "anon_inode:"), strings.HasPrefix(v.name, "socket:"):
		return v.name
	case v.name == "/secretmem (deleted)": // memfd_secret(2)
		return "secret memory"
	case v.has("io"), v.has("pf"):
		if v.name != "[vvar]" && v.name != "[vvar_vclock]" {
			return "device memory " + v.name
		}
	case v.has("um"), v.has("uw"), v.has("ui"):
		return "userfaultfd"
	case v.has("ss"):
		return "a shadow stack"
	case v.has(keyed):
		return "a protection key"
	}
	return ""
}

// kind tells how the mapping is restored.
func (v *vma) kind() dump.Mapping_Kind {
	switch {
	case v.name == "[vdso]":
		return dump.Mapping_VDSO
	case strings.HasPrefix(v.name, "[vvar"):
		return dump.Mapping_VVAR
	case v.name == "[vsyscall]":
		return dump.Mapping_VSYSCALL
	case v.segment(): // before the next: the first one's id is 0
		return dump.Mapping_SHM
	case strings.HasPrefix(v.name, "/[aio]"):
		return dump.Mapping_AIO
	case v.inode == 0:
		return dump.Mapping_ANON
	case v.anonymousFile():
		return dump.Mapping_MEMORY
	}
	return dump.Mapping_FILE
}

func (v *vma) anonymousFile() bool { return nameless(v.name) }

// nameless tells whether a file that the kernel calls so has no name any more, or never had one.
func nameless(name string) bool {
	return strings.HasSuffix(name, " (deleted)") || strings.HasPrefix(name, "[anon_shmem:")
}

// openFlags are those for a look at a mapped file. One that is not to be read is opened so that nobody is told (inotify(7)).
func openFlags(name string) int {
	if nameless(name) {
		return unix.O_RDONLY
	}
	return unix.O_PATH
}

// FileRefs finds the records of mapped files and of the content of those without a name.
type FileRefs interface {
	Refer(f *os.File, path string) (*dump.FileRef, error)
	Memory(f *os.File, name string) (id uint64, err error)
}

// Files finds the records of what the processes of an instance have mapped, which do not run: a file is opened once.
type Files struct {
	refs  FileRefs
	found map[mappedFile]*dump.FileRef
}

// mappedFile is a file as the mappings of an instance show it.
type mappedFile struct {
	device string
	inode  uint64
	name   string
}

// NewFiles has refs find the records.
func NewFiles(refs FileRefs) *Files { return &Files{refs, make(map[mappedFile]*dump.FileRef)} }

// keptFlags are the VmFlags that a restore brings back.
var keptFlags = []string{"gd", "lo", "hg", "nh", "dc", "dd", "wf", "sr", "rr", "nr", "mg", "dp", "sl"}

// Dump returns the record of the address space, without what only the process itself can tell (see [AddressSpace.Ask]).
func (a *AddressSpace) Dump(id uint64, files *Files) (*dump.Mm, error) {
	mm := &dump.Mm{Id: id}
	for i := range a.vmas {
		v := &a.vmas[i]
		m := &dump.Mapping{
			Start: v.start, End: v.end, Prot: v.prot(), Shared: v.shared(), Kind: v.kind(), Offset: v.offset,
			MaxWrite: v.has("mw"),
			// What is locked as a whole is there as a whole.
			LockOnFault: v.has("lo") && v.resident < v.end-v.start,
		}
		m.VmFlags = strings.Join(slices.DeleteFunc(slices.Clone(v.flags), func(f string) bool { return !slices.Contains(keptFlags, f) }), " ")
		for _, prefix := range []string{"[anon:", "[anon_shmem:"} {
			if name, ok := strings.CutPrefix(v.name, prefix); ok {
				m.Name = strings.TrimSuffix(name, "]")
			}
		}
		switch m.Kind {
		case dump.Mapping_SHM:
			m.Shm = v.inode + 1
		case dump.Mapping_FILE, dump.Mapping_MEMORY:
			if err := a.file(v, m, files); err != nil {
				return nil, err
			}
		}
		mm.Mappings = append(mm.Mappings, m)
	}
	link := fmt.Sprintf("/proc/%d/exe", a.Task())
	path, err := os.Readlink(link)
	if err != nil {
		return nil, err
	}
	exe, err := os.OpenFile(link, openFlags(path), 0)
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	if mm.Exe, err = files.refer(exe, path); err != nil {
		return nil, fmt.Errorf("pid %d (%s): executable: %w", a.PID, a.Comm, err)
	}
	if mm.Auxv, err = os.ReadFile(fmt.Sprintf("/proc/%d/auxv", a.Task())); err != nil {
		return nil, err
	}
	return mm, a.layout(mm)
}

// Guard notes the guard regions: those of private mappings, which [pager.Copy.Look] has found, and those of others.
func (a *AddressSpace) Guard(mm *dump.Mm, private []dump.Range) error {
	pages, err := pager.NewScanner(a.Task())
	if err != nil {
		return err
	}
	defer pages.Close()
	for _, m := range mm.GetMappings() {
		if m.GetShared() && m.GetKind() != dump.Mapping_AIO {
			if private, err = pages.Guards(private, m.GetStart(), m.GetEnd()); err != nil {
				return err
			}
		}
	}
	for _, m := range mm.GetMappings() {
		for _, r := range private {
			if start, end := max(r.Start, m.GetStart()), min(r.End, m.GetEnd()); start < end {
				m.Guards = append(m.Guards, start, end)
			}
		}
	}
	return nil
}

// file notes what file a mapping is of. It is opened through map_files, which leads to the mapped inode itself.
func (a *AddressSpace) file(v *vma, m *dump.Mapping, files *Files) error {
	key := mappedFile{v.device, v.inode, v.name}
	ref := files.found[key]
	if ref == nil {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/map_files/%x-%x", a.Task(), v.start, v.end), openFlags(v.name), 0)
		if err == nil {
			defer f.Close()
			ref, err = files.refer(f, v.name)
		}
		if err != nil {
			return fmt.Errorf("pid %d (%s): mapping of %s: %w", a.PID, a.Comm, v.name, err)
		}
		files.found[key] = ref
	}
	if ref.GetMemory() != 0 {
		m.Kind, m.Memory = dump.Mapping_MEMORY, ref.GetMemory()
	} else {
		m.Kind, m.File = dump.Mapping_FILE, ref
	}
	return nil
}

func (s *Files) refer(f *os.File, path string) (*dump.FileRef, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("fstat %s: %w", path, err)
	}
	// Another name may be left, as sem_open(3) does it.
	if st.Nlink == 0 && nameless(path) {
		id, err := s.refs.Memory(f, path)
		return &dump.FileRef{Path: path, Memory: id}, err
	}
	return s.refs.Refer(f, path)
}

// layout reads the borders of code, data, stack, arguments and environment.
func (a *AddressSpace) layout(mm *dump.Mm) error {
	s, err := object.ReadStat(a.Task())
	if err != nil {
		return err
	}
	mm.StartCode, mm.EndCode, mm.StartData, mm.EndData = s.StartCode, s.EndCode, s.StartData, s.EndData
	mm.StartBrk, mm.StartStack = s.StartBrk, s.StartStack
	mm.ArgStart, mm.ArgEnd, mm.EnvStart, mm.EnvEnd = s.ArgStart, s.ArgEnd, s.EnvStart, s.EnvEnd
	return nil
}

// Ask asks a process for what only it can tell of its memory.
func (a *AddressSpace) Ask(b *remote.Batch) func(mm *dump.Mm) error {
	brk := b.Call("brk", unix.SYS_BRK, 0)
	dumpable := b.Call("get dumpable", unix.SYS_PRCTL, unix.PR_GET_DUMPABLE)
	thp := b.Call("get huge page setting", unix.SYS_PRCTL, unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	modes := a.askModes(b)
	return func(mm *dump.Mm) error {
		values := [3]int64{}
		for i, r := range []remote.Result{brk, dumpable, thp} {
			v, err := b.Value(r)
			if err != nil {
				return err
			}
			values[i] = v
		}
		mm.Brk, mm.Dumpable, mm.ThpDisable = uint64(values[0]), uint32(values[1]), values[2] != 0
		modes(mm)
		return nil
	}
}

// Space returns the private mappings as the pager wants to know them. id is that of the Mm record.
func (a *AddressSpace) Space(id uint64) *pager.Space {
	s := &pager.Space{ID: id, PID: a.Task(), PIDFD: a.PidFD}
	s.VDSO.Start, s.VDSO.End = a.VDSO()
	for i := range a.vmas {
		v := &a.vmas[i]
		switch k := v.kind(); {
		case v.shared() || k == dump.Mapping_VDSO || k == dump.Mapping_VVAR || k == dump.Mapping_VSYSCALL:
		default:
			s.Mappings = append(s.Mappings, pager.Mapping{
				Range: dump.Range{Start: v.start, End: v.end}, Anonymous: k == dump.Mapping_ANON, Tracked: v.has("uw"),
			})
		}
	}
	return s
}
