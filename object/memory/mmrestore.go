package memory

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/remote"
)

// Mappable tells where in a stub's descriptor table the files are that its memory maps.
type Mappable interface {
	RefFD(ref *dump.FileRef, write bool) (int, error)
	MemoryFD(id uint64) (int, error)
	// SegmentSize gives the size of a ShmSegment record.
	SegmentSize(id uint64) (uint64, error)
}

// Map lays out the address space of a stub: everything is unmapped but the arena and what is kept, ascending ranges that are
// mapped as recorded already; then the rest is mapped. A private mapping that is to be filled is writable; [Protect] follows.
// Others are not: a program may reserve more than there is memory.
func Map(s *remote.Script, a *remote.Arena, mm *dump.Mm, files Mappable, kept []dump.Range, filled func(*dump.Mapping) bool) error {
	s.Unmap(a, kept)
	for _, m := range mm.GetMappings() {
		if m.GetKind() == dump.Mapping_VVAR || m.GetKind() == dump.Mapping_VDSO {
			s.Call("map the vDSO", unix.SYS_ARCH_PRCTL, linux.MapVDSO64, m.GetStart())
			break
		}
	}
	if err := attach(s, mm, files.SegmentSize); err != nil {
		return err
	}
	for _, m := range mm.GetMappings() {
		fd, flags := -1, unix.MAP_FIXED_NOREPLACE
		var err error
		switch m.GetKind() {
		case dump.Mapping_ANON:
			flags |= unix.MAP_ANONYMOUS
		case dump.Mapping_FILE:
			fd, err = files.RefFD(m.GetFile(), m.GetShared() && m.GetMaxWrite())
		case dump.Mapping_MEMORY:
			fd, err = files.MemoryFD(m.GetMemory())
		default:
			continue
		}
		if err != nil {
			return err
		}
		prot := m.GetProt()
		switch {
		case m.GetShared():
			flags |= unix.MAP_SHARED
		case slices.Contains(strings.Fields(m.GetVmFlags()), "dp"):
			flags |= linux.MAP_DROPPABLE
		default:
			flags |= unix.MAP_PRIVATE
		}
		if !m.GetShared() && filled(m) {
			prot |= unix.PROT_READ | unix.PROT_WRITE
		}
		for _, flag := range strings.Fields(m.GetVmFlags()) {
			flags |= mapFlags[flag]
		}
		for len(kept) > 0 && kept[0].End <= m.GetStart() {
			kept = kept[1:]
		}
		for _, r := range without(dump.Range{Start: m.GetStart(), End: m.GetEnd()}, kept) {
			s.Call(fmt.Sprintf("map %v %s", r, m.GetFile().GetPath()), unix.SYS_MMAP,
				r.Start, r.Len(), prot, flags, fd, m.GetOffset()+r.Start-m.GetStart())
		}
	}
	return nil
}

// without returns the parts of a range that are in none of the ascending ones.
func without(r dump.Range, others []dump.Range) []dump.Range {
	var parts []dump.Range
	for _, o := range others {
		if o.Start >= r.End {
			break
		}
		if o.Start > r.Start {
			parts = append(parts, dump.Range{Start: r.Start, End: o.Start})
		}
		r.Start = max(r.Start, o.End)
	}
	if r.Start < r.End {
		parts = append(parts, r)
	}
	return parts
}

// mapFlags gives the flag of mmap(2) that sets a flag of smaps.
var mapFlags = map[string]int{"gd": unix.MAP_GROWSDOWN, "nr": unix.MAP_NORESERVE}

// advice gives the madvise(2) call that sets a flag of smaps.
var advice = map[string]int{
	"hg": unix.MADV_HUGEPAGE, "nh": unix.MADV_NOHUGEPAGE, "dc": unix.MADV_DONTFORK, "dd": unix.MADV_DONTDUMP,
	"wf": unix.MADV_WIPEONFORK, "sr": unix.MADV_SEQUENTIAL, "rr": unix.MADV_RANDOM, "mg": unix.MADV_MERGEABLE,
}

// Protect gives the filled mappings their protection, advice and names. Of those that were kept, as in [Map], the protection is
// not known: it is that of whatever process they were made for.
func Protect(s *remote.Script, mm *dump.Mm, kept []dump.Range) {
	const filled = unix.PROT_READ | unix.PROT_WRITE
	for _, m := range mm.GetMappings() {
		for len(kept) > 0 && kept[0].End <= m.GetStart() {
			kept = kept[1:]
		}
		switch m.GetKind() {
		case dump.Mapping_VDSO, dump.Mapping_VVAR, dump.Mapping_VSYSCALL, dump.Mapping_AIO:
			continue
		}
		size := m.GetEnd() - m.GetStart()
		for guard := range slices.Chunk(m.GetGuards(), 2) {
			s.Call(fmt.Sprintf("guard %#x", guard[0]), unix.SYS_MADVISE, guard[0], guard[1]-guard[0], unix.MADV_GUARD_INSTALL)
		}
		inherited := len(kept) > 0 && kept[0].Start < m.GetEnd()
		if !m.GetShared() && (inherited || m.GetProt()&filled != filled) {
			s.Call(fmt.Sprintf("protect %#x", m.GetStart()), unix.SYS_MPROTECT, m.GetStart(), size, m.GetProt())
		}
		for _, flag := range strings.Fields(m.GetVmFlags()) {
			if a, ok := advice[flag]; ok {
				s.Call("madvise "+flag, unix.SYS_MADVISE, m.GetStart(), size, a)
			}
			if flag == "lo" {
				s.Call("lock memory", unix.SYS_MLOCK2, m.GetStart(), size, lockFlags(m))
			}
		}
		if m.GetName() != "" {
			b := s.Room(512)
			b.Try("name memory", unix.SYS_PRCTL, unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, m.GetStart(), size, b.String(m.GetName()))
		}
		if slices.Contains(strings.Fields(m.GetVmFlags()), "sl") { // at last: nothing can be changed any more
			s.Call("seal memory", unix.SYS_MSEAL, m.GetStart(), size, 0)
		}
	}
}

// Describe sets the borders of code, data, heap, stack, arguments and environment, the auxiliary vector and the
// executable. It needs CAP_CHECKPOINT_RESTORE in the stub's user namespace (prctl(2), PR_SET_MM_MAP).
func Describe(s *remote.Script, mm *dump.Mm, exe int) {
	b := s.Room(4096 + len(mm.GetAuxv()))
	m := linux.MMMap{
		StartCode: mm.GetStartCode(), EndCode: mm.GetEndCode(), StartData: mm.GetStartData(), EndData: mm.GetEndData(),
		StartBrk: mm.GetStartBrk(), Brk: mm.GetBrk(), StartStack: mm.GetStartStack(), ArgStart: mm.GetArgStart(),
		ArgEnd: mm.GetArgEnd(), EnvStart: mm.GetEnvStart(), EnvEnd: mm.GetEnvEnd(),
		AuxvSize: uint32(len(mm.GetAuxv())), ExeFD: uint32(exe),
	}
	if len(mm.GetAuxv()) > 0 {
		m.Auxv = uint64(b.Data(mm.GetAuxv()))
	}
	const size = unsafe.Sizeof(m)
	data := (*[size]byte)(unsafe.Pointer(&m))[:]
	b.Call("describe memory", unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_MAP, b.Data(data), size, 0)
	if mm.GetThpDisable() {
		b.Call("disable huge pages", unix.SYS_PRCTL, unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	}
}

// vsyscall is the address of the kernel's own page in every process (VSYSCALL_ADDR, arch/x86/include/uapi/asm/vsyscall.h). It is
// the last mapping.
const vsyscall = 0xffffffffff600000

// Check validates the mappings of a record: ascending, page aligned, disjoint, in user space, of a known kind.
func Check(mm *dump.Mm) error {
	var last uint64
	for _, m := range mm.GetMappings() {
		if m.GetKind() == dump.Mapping_VSYSCALL && m.GetStart() == vsyscall {
			continue
		}
		if _, known := dump.Mapping_Kind_name[int32(m.GetKind())]; !known || m.GetProt()&^(unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC) != 0 {
			return fmt.Errorf("address space %d: mapping %#x: kind %d with protection %#x: %w", mm.GetId(), m.GetStart(), m.GetKind(), m.GetProt(), object.ErrUnsupported)
		}
		if m.GetStart()%4096 != 0 || m.GetEnd()%4096 != 0 || m.GetStart() < last || m.GetEnd() <= m.GetStart() || m.GetEnd() > remote.TaskSize {
			return fmt.Errorf("address space %d: mapping %#x-%#x: not possible", mm.GetId(), m.GetStart(), m.GetEnd())
		}
		last = m.GetEnd()
		if err := checkGuards(m); err != nil {
			return fmt.Errorf("address space %d: mapping %#x-%#x: %w", mm.GetId(), m.GetStart(), m.GetEnd(), err)
		}
	}
	return nil
}

// checkGuards refuses guard regions that do not lie in their mapping, one after the other.
func checkGuards(m *dump.Mapping) error {
	guards := m.GetGuards()
	if len(guards)%2 != 0 {
		return fmt.Errorf("a guard region without an end: %w", object.ErrUnsupported)
	}
	last := m.GetStart()
	for guard := range slices.Chunk(guards, 2) {
		if guard[0] < last || guard[1] <= guard[0] || guard[1] > m.GetEnd() || guard[0]%4096 != 0 || guard[1]%4096 != 0 {
			return fmt.Errorf("guard region %#x-%#x: not possible", guard[0], guard[1])
		}
		last = guard[1]
	}
	return nil
}

// CheckVDSO compares the vDSO of each record with the running kernel's: their layouts must be the same.
func CheckVDSO(mms map[uint64]*dump.Mm) error {
	own, err := readMaps(os.Getpid())
	if err != nil {
		return err
	}
	var have []string
	for i := range own {
		if k := own[i].kind(); k == dump.Mapping_VDSO || k == dump.Mapping_VVAR {
			have = append(have, fmt.Sprintf("%s %#x", k, own[i].end-own[i].start))
		}
	}
	for id, mm := range mms {
		var want []string
		for _, m := range mm.GetMappings() {
			if m.GetKind() == dump.Mapping_VDSO || m.GetKind() == dump.Mapping_VVAR {
				want = append(want, fmt.Sprintf("%s %#x", m.GetKind(), m.GetEnd()-m.GetStart()))
			}
		}
		if !slices.Equal(want, have) {
			return fmt.Errorf("address space %d: the vDSO of the snapshot's kernel (%s) is not this kernel's (%s)",
				id, strings.Join(want, ", "), strings.Join(have, ", "))
		}
	}
	return nil
}

// FindHole returns an address at which size bytes are free in all of the address spaces.
func FindHole(size uint64, mms map[uint64]*dump.Mm) (uint64, error) {
	const first, step = 0x100000000000, 0x010000000000
	for base := uint64(first); base+size < 0x7e0000000000; base += step {
		free := true
		for _, mm := range mms {
			for _, m := range mm.GetMappings() {
				if m.GetStart() < base+size && m.GetEnd() > base {
					free = false
				}
			}
		}
		if free {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no %d bytes of addresses are free in every process", size)
}
