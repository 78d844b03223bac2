package linux

import (
	"testing"
	"unsafe"
)

func TestCoreLayout(t *testing.T) {
	var s ElfPrstatus
	if n := unsafe.Sizeof(s); n != 112 {
		t.Errorf("sizeof(struct elf_prstatus_common) = %d", n)
	}
	if o := unsafe.Offsetof(s.Pid); o != 32 {
		t.Errorf("offset of pr_pid = %d", o)
	}
	var p ElfPrpsinfo
	if n := unsafe.Sizeof(p); n != 136 {
		t.Errorf("sizeof(struct elf_prpsinfo) = %d", n)
	}
	if o := unsafe.Offsetof(p.Fname); o != 40 {
		t.Errorf("offset of pr_fname = %d", o)
	}
}
