package file_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vps/object"
	"vps/object/file"
)

// Who has a file open past the page cache is known; a pipe of packets is no file.
func TestWritesDirectly(t *testing.T) {
	level, err := object.ReadLevel(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p, err := object.OpenProc(os.Getpid(), level)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	expect := func(what string, want bool) {
		t.Helper()
		if got, err := file.WritesDirectly(p); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", what, got, err, want)
		}
	}
	expect("nothing open", false)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_DIRECT|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	expect("a pipe of packets", false)
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_CREATE|os.O_RDWR|unix.O_DIRECT, 0o600)
	if err != nil {
		t.Skip(err) // not on every file system
	}
	defer f.Close()
	expect("a file", true)
}
