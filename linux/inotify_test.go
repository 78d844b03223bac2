package linux

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestNextWatch(t *testing.T) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, INOTIFY_IOC_SETNEXTWD, 4711); err != nil {
		t.Fatal(err)
	}
	if wd, err := unix.InotifyAddWatch(fd, t.TempDir(), unix.IN_CREATE); err != nil || wd != 4711 {
		t.Errorf("watch %d, %v", wd, err)
	}
}
