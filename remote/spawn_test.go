package remote

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The image is executed although the descriptors that a stub is given are put at low numbers, among which those of the image and of
// other files may be.
func TestSpawnWithAnyDescriptors(t *testing.T) {
	a, err := NewArena(testBase, 8, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for n := range 24 {
		var files []*os.File
		for i := range n {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if i%2 == n%2 { // in no order
				files = append(files, f)
			} else {
				files = append([]*os.File{f}, files...)
			}
		}
		pid, pidfd, err := Spawn(a, 0, SpawnOptions{Files: files})
		if err != nil {
			t.Fatalf("with %d descriptors: %v", n, err)
		}
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		unix.Wait4(pid, nil, unix.WALL, nil)
		unix.Close(pidfd)
	}
}
