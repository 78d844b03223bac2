package linux

import (
	"testing"
	"unsafe"
)

func TestUnixDiag(t *testing.T) {
	if size := unsafe.Sizeof(UnixDiagReq{}); size != 24 {
		t.Errorf("UnixDiagReq has %d bytes, want 24", size)
	}
	if size := unsafe.Sizeof(UnixDiagMsg{}); size != 16 {
		t.Errorf("UnixDiagMsg has %d bytes, want 16", size)
	}
	if off := unsafe.Offsetof(UnixDiagReq{}.Cookie); off != 16 {
		t.Errorf("offset of Cookie is %d, want 16", off)
	}
}
