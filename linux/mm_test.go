package linux

import (
	"testing"
	"unsafe"
)

func TestMMMapLayout(t *testing.T) {
	var m MMMap
	if s := unsafe.Sizeof(m); s != 104 {
		t.Errorf("sizeof(struct prctl_mm_map) = %d", s)
	}
	if o := unsafe.Offsetof(m.ExeFD); o != 100 {
		t.Errorf("offset of exe_fd = %d", o)
	}
}
