package linux

import (
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
)

// TestSkBuff compares the layout with the kernel's own description.
func TestSkBuff(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skip("BTF of the kernel: ", err)
	}
	var theirs *btf.Struct
	if err := kernel.TypeByName("__sk_buff", &theirs); err != nil {
		t.Fatal(err)
	}
	if size := unsafe.Sizeof(SkBuff{}); size != uintptr(theirs.Size) {
		t.Errorf("SkBuff has %d bytes, want %d", size, theirs.Size)
	}
	var s SkBuff
	for name, offset := range map[string]uintptr{
		"mark": unsafe.Offsetof(s.Mark), "protocol": unsafe.Offsetof(s.Protocol), "vlan_present": unsafe.Offsetof(s.VlanPresent),
		"ifindex": unsafe.Offsetof(s.Ifindex), "data_end": unsafe.Offsetof(s.DataEnd), "tstamp": unsafe.Offsetof(s.Tstamp),
		"gso_segs": unsafe.Offsetof(s.GSOSegs), "hwtstamp": unsafe.Offsetof(s.Hwtstamp),
	} {
		for _, m := range theirs.Members {
			if m.Name == name && uintptr(m.Offset.Bytes()) != offset {
				t.Errorf("%s is at %d, want %d", name, offset, m.Offset.Bytes())
			}
		}
	}
}

func TestBPFFibLookup(t *testing.T) {
	var f BPFFibLookup
	if size := unsafe.Sizeof(f); size != 64 {
		t.Errorf("BPFFibLookup has %d bytes, want 64", size)
	}
	for name, offset := range map[string][2]uintptr{
		"ifindex": {unsafe.Offsetof(f.Ifindex), 8}, "src": {unsafe.Offsetof(f.Src), 16}, "dst": {unsafe.Offsetof(f.Dst), 32},
		"dmac": {unsafe.Offsetof(f.Dmac), 58},
	} {
		if offset[0] != offset[1] {
			t.Errorf("%s is at %d, want %d", name, offset[0], offset[1])
		}
	}
}
