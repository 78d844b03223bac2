package linux

import (
	"testing"
	"unsafe"
)

func TestUffdioAPISize(t *testing.T) {
	if n := unsafe.Sizeof(UffdioAPI{}); n != 24 {
		t.Errorf("struct uffdio_api has %d bytes, want 24", n)
	}
}
