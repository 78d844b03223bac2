package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File is a file that appears under its name when it is whole, with mode 0600. Where the file system has unnamed
// files, open(2) O_TMPFILE, nothing is left of it if its writer is killed before.
type File struct {
	*os.File
	Path string // its name to be; "" for a file that is there already
	temp string // its name until then; "" for none
}

// Create makes a file that is to have a name, and takes the place of one that has it.
func Create(path string) (*File, error) {
	dir := filepath.Dir(path)
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o600)
	if err == nil {
		return &File{File: f, Path: path}, nil
	}
	if f, err = os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp"); err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return &File{File: f, Path: path, temp: f.Name()}, nil
}

// Commit syncs the file and gives it its name, in place of a file that has it.
func (f *File) Commit() error {
	if err := f.Sync(); err != nil {
		return err
	}
	if f.temp == "" {
		// linkat(2) replaces nothing, so that the name is given in two steps.
		temp := filepath.Join(filepath.Dir(f.Path), fmt.Sprintf(".%s.%d.tmp", filepath.Base(f.Path), os.Getpid()))
		err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, temp, unix.AT_SYMLINK_FOLLOW)
		if err != nil {
			return &os.LinkError{Op: "link", Old: "unnamed file", New: temp, Err: err}
		}
		f.temp = temp
	}
	if err := os.Rename(f.temp, f.Path); err != nil {
		return err
	}
	f.temp = ""
	dir, err := os.Open(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Discard closes the file. If it was not committed, nothing is left of it.
func (f *File) Discard() error {
	err := f.Close()
	if f.temp != "" {
		err = errors.Join(err, os.Remove(f.temp))
	}
	return err
}
