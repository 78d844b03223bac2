package linux

import (
	"testing"
	"unsafe"
)

func TestSignalLayout(t *testing.T) {
	for _, c := range []struct {
		what      string
		got, want uintptr
	}{
		{"sizeof(struct sigaction)", unsafe.Sizeof(Sigaction{}), 32},
		{"sigaction.sa_mask", unsafe.Offsetof(Sigaction{}.Mask), 24},
		{"sizeof(stack_t)", unsafe.Sizeof(Stack{}), 24},
		{"stack_t.ss_size", unsafe.Offsetof(Stack{}.Size), 16},
		{"sizeof(struct sigevent)", unsafe.Sizeof(Sigevent{}), 64},
		{"sigevent.sigev_notify", unsafe.Offsetof(Sigevent{}.Notify), 12},
		{"sigevent.sigev_notify_thread_id", unsafe.Offsetof(Sigevent{}.TID), 16},
	} {
		if c.got != c.want {
			t.Errorf("%s = %d, want %d", c.what, c.got, c.want)
		}
	}
}
