// Package atomicfile writes files that appear under their name only when they are whole.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File is open for writing, with mode 0600. Where the file system has unnamed files, open(2) O_TMPFILE, nothing is
// left of it if the program is killed before Commit. Discard ends it in any case.
type File struct {
	*os.File
	path string // "": nothing is to be given a name
	temp string // its name until then; "" for none
}

// Create begins a file that is to be at path.
func Create(path string) (*File, error) {
	dir := filepath.Dir(path)
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o600)
	if err == nil {
		return &File{File: f, path: path}, nil
	}
	if f, err = os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp"); err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return &File{File: f, path: path, temp: f.Name()}, nil
}

// Existing makes a File of something that is there already and is written into, such as a pipe.
func Existing(f *os.File) *File { return &File{File: f} }

// Path returns the name that the file is to have, "" for what [Existing] made.
func (f *File) Path() string { return f.path }

// Commit syncs the file to the disk and gives it its name, in place of a file that has it.
func (f *File) Commit() error {
	if f.path == "" {
		return nil
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if f.temp == "" {
		// linkat(2) replaces nothing, so that the name is given in two steps.
		temp := filepath.Join(filepath.Dir(f.path), fmt.Sprintf(".%s.%d.tmp", filepath.Base(f.path), os.Getpid()))
		err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, temp, unix.AT_SYMLINK_FOLLOW)
		if err != nil {
			return &os.LinkError{Op: "link", Old: "unnamed file", New: temp, Err: err}
		}
		f.temp = temp
	}
	if err := os.Rename(f.temp, f.path); err != nil {
		return err
	}
	f.temp = ""
	dir, err := os.Open(filepath.Dir(f.path))
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
