package linux

import (
	"os"
	"os/exec"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestPidfdInfo(t *testing.T) {
	var info PidfdInfo
	if size, at := unsafe.Sizeof(info), unsafe.Offsetof(info.ExitCode); size != 64 || at != 60 {
		t.Errorf("PidfdInfo has %d bytes with the exit code at %d, want 64 and 60", size, at)
	}
	cmd := exec.Command("sh", "-c", "read x; exit 3")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	info, err = GetPidfdInfo(fd, 0)
	if err == unix.ENOTTY {
		t.Skip("the kernel has no PIDFD_GET_INFO")
	}
	if err != nil || int(info.TGID) != cmd.Process.Pid || int(info.PPID) != os.Getpid() {
		t.Errorf("alive: %+v, %v", info, err)
	}
	in.Close()
	cmd.Wait()
	info, err = GetPidfdInfo(fd, PIDFD_INFO_EXIT)
	if err == unix.ESRCH {
		t.Skip("the kernel does not tell how a process ended")
	}
	if err != nil || info.Mask&PIDFD_INFO_EXIT == 0 || info.ExitCode != 3<<8 {
		t.Errorf("gone: %+v, %v", info, err)
	}
}
