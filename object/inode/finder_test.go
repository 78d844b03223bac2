package inode_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vps/object/inode"
)

func TestFinder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/dev/shm", "finder") // a small file system
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := filepath.Join(dir, "a/b/c")
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	finder := inode.NewFinder(os.Getpid())
	f, err := finder.ByHandle(st.Dev, handle)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Name() != name {
		t.Errorf("by handle: %s, want %s", f.Name(), name)
	}
	got, found, err := finder.ByNumber(inode.Number{Dev: st.Dev, Ino: st.Ino})
	if err != nil || got != name || found.Ino != st.Ino {
		t.Errorf("by number: %s, inode %d, %v, want %s, %d", got, found.Ino, err, name, st.Ino)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if got, _, err := finder.ByNumber(inode.Number{Dev: st.Dev, Ino: st.Ino}); !errors.Is(err, inode.ErrNotFound) {
		t.Errorf("by number of a deleted file: %s, %v", got, err)
	}
	if _, err := finder.ByHandle(^uint64(0), handle); !errors.Is(err, inode.ErrNotFound) {
		t.Errorf("by handle on a file system that is not there: %v", err)
	}
}
