package linux

import (
	"testing"
	"unsafe"
)

func TestSeccompData(t *testing.T) {
	var d SeccompData
	if got := unsafe.Sizeof(d); got != 64 {
		t.Errorf("size is %d, want 64", got)
	}
	if got := unsafe.Offsetof(d.Arch); got != 4 {
		t.Errorf("offset of Arch is %d, want 4", got)
	}
	if got := unsafe.Offsetof(d.Args); got != 16 {
		t.Errorf("offset of Args is %d, want 16", got)
	}
}
