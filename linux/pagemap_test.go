package linux

import (
	"testing"
	"unsafe"
)

func TestPagemapLayout(t *testing.T) {
	var a PMScanArg
	if s := unsafe.Sizeof(a); s != 96 {
		t.Errorf("sizeof(struct pm_scan_arg) = %d", s)
	}
	if o := unsafe.Offsetof(a.ReturnMask); o != 88 {
		t.Errorf("offset of return_mask = %d", o)
	}
	if s := unsafe.Sizeof(PageRegion{}); s != 24 {
		t.Errorf("sizeof(struct page_region) = %d", s)
	}
}
