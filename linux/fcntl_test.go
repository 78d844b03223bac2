package linux

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestFcntlGetOwnerEx(t *testing.T) {
	if size := unsafe.Sizeof(FOwnerEx{}); size != 8 {
		t.Errorf("FOwnerEx has %d bytes, want 8", size)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETOWN, unix.Getpid()); err != nil {
		t.Fatal(err)
	}
	owner, err := FcntlGetOwnerEx(fd)
	if err != nil || owner.Type != 1 || int(owner.PID) != unix.Getpid() {
		t.Errorf("owner %+v, %v", owner, err)
	}
}
