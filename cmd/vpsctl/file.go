package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// newFile is a file that appears under its name when it is whole, with mode 0600. Where the file system has unnamed
// files, open(2) O_TMPFILE, nothing is left of it if vpsctl is killed before.
type newFile struct {
	*os.File
	path string
	temp string // its name until then; "" for none
}

func createFile(path string) (*newFile, error) {
	dir := filepath.Dir(path)
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o600)
	if err == nil {
		return &newFile{File: f, path: path}, nil
	}
	if f, err = os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp"); err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return &newFile{File: f, path: path, temp: f.Name()}, nil
}

// commit syncs the file and gives it its name, in place of a file that has it.
func (f *newFile) commit() error {
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

// discard closes the file. If it was not committed, nothing is left of it.
func (f *newFile) discard() error {
	err := f.Close()
	if f.temp != "" {
		err = errors.Join(err, os.Remove(f.temp))
	}
	return err
}

// isSpecial reports whether path is there and is something to be written into rather than replaced: a pipe, a device.
func isSpecial(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeDevice) != 0
}
