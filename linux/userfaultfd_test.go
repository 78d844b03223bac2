package linux

import (
	"testing"
	"unsafe"
)

func TestUffdioAPISize(t *testing.T) {
	if n := unsafe.Sizeof(UffdioAPI{}); n != 24 {
		t.Errorf("struct uffdio_api has %d bytes, want 24", n)
	}
	if n := unsafe.Sizeof(UffdioRegister{}); n != 32 {
		t.Errorf("struct uffdio_register has %d bytes, want 32", n)
	}
}
