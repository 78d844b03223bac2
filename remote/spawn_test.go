package remote

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The image is executed although its descriptor is among the numbers at which a stub finds those that it is given.
func TestSpawnWithLowDescriptorsFree(t *testing.T) {
	a, err := NewArena(testBase, 8, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	open := func(n int) (files []*os.File) {
		for range n {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			files = append(files, f)
		}
		return files
	}
	low, files := open(16), open(12)
	for _, f := range low {
		f.Close()
	}
	pid, pidfd, err := Spawn(a, 0, SpawnOptions{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	unix.Wait4(pid, nil, unix.WALL, nil)
	unix.Close(pidfd)
}
