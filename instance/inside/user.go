// Package inside reads what lies inside a running instance: its files, users and processes. All of it is hostile input, which
// may change under the reader.
package inside

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// mostBytes is how much of a file of the instance's we read.
const mostBytes = 1 << 20

// File reads a file of the instance whose init is pid. The instance may change it and what leads there at any
// time: links end at its root, and only a regular file is read.
func File(pid int, path string) ([]byte, error) {
	root, err := os.OpenFile(filepath.Join("/proc", strconv.Itoa(pid), "root"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return io.ReadAll(io.LimitReader(f, mostBytes))
}

// LookUp finds a user, "NAME[:GROUP]" of names or numbers, in the instance's own files. No name is root, for whom they
// need not be whole: somebody has to repair them.
func LookUp(pid int, name string) (*user.ExecUser, error) {
	var files [2]bytes.Reader
	for i, path := range []string{"/etc/passwd", "/etc/group"} {
		data, err := File(pid, path)
		if err != nil && name != "" && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		files[i].Reset(data)
	}
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, &files[0], &files[1])
	if err != nil {
		return nil, fmt.Errorf("user %q in its /etc/passwd and /etc/group: %w", name, err)
	}
	return u, nil
}

// userNames maps the instance's uids to names.
func userNames(pid int) map[int]string {
	names := make(map[int]string)
	data, err := File(pid, "/etc/passwd")
	if err != nil {
		return names // numbers will do
	}
	users, err := user.ParsePasswd(bytes.NewReader(data))
	if err != nil {
		return names
	}
	for _, u := range users {
		if _, ok := names[u.Uid]; !ok {
			names[u.Uid] = u.Name
		}
	}
	return names
}
