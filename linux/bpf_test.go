package linux

import (
	"testing"
	"unsafe"
)

func TestBPFLayout(t *testing.T) {
	if n := unsafe.Offsetof(bpfLinkCreate{}.IterInfo); n != 16 {
		t.Errorf("iter_info is at %d, want 16", n)
	}
	if n := unsafe.Offsetof(bpfLinkCreate{}.IterInfoLen); n != 24 {
		t.Errorf("iter_info_len is at %d, want 24", n)
	}
	if n := unsafe.Offsetof(bpfIterTask{}.PIDFD); n != 8 {
		t.Errorf("pid_fd is at %d, want 8", n)
	}
	if n := unsafe.Sizeof(bpfIterCreate{}); n != 8 {
		t.Errorf("struct iter_create has %d bytes, want 8", n)
	}
}
