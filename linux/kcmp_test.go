package linux

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestKcmp(t *testing.T) {
	if size := unsafe.Sizeof(KcmpEpollSlot{}); size != 12 {
		t.Errorf("KcmpEpollSlot has %d bytes, want 12", size)
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	dup, err := unix.FcntlInt(uintptr(ends[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	self := os.Getpid()
	compare := func(a, b int) int {
		t.Helper()
		order, err := Kcmp(self, self, KCMP_FILE, uint64(a), uint64(b))
		if err == unix.ENOSYS || err == unix.EPERM {
			t.Skip("kcmp: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return order
	}
	if compare(ends[0], dup) != 0 {
		t.Error("a duplicate is not the same open file")
	}
	if a, b := compare(ends[0], ends[1]), compare(ends[1], ends[0]); a == 0 || a != -b {
		t.Errorf("the two ends compare as %d and %d", a, b)
	}

	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, ends[0], &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	slot := KcmpEpollSlot{Efd: uint32(ep), Tfd: uint32(ends[0])}
	if order, err := KcmpEpoll(self, self, dup, slot); err != nil || order != 0 {
		t.Errorf("watched file compares as %d, %v", order, err)
	}
}
