package account

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// write sets an existing file of a group, in one write(2) as the kernel wants.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if err != nil {
		err = fmt.Errorf("write %q to %s: %w", value, f.Name(), errors.Unwrap(err))
	}
	return errors.Join(err, f.Close())
}

func words(dir, file string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	return strings.Fields(string(b)), err
}

// number reads a file of one number; "max" is 0, that is, no limit.
func number(dir, file string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Join(dir, file), err)
	}
	return n, nil
}

// unlimited is what v1 memory files show for no limit: the largest number of
// bytes in whole pages.
func unlimited(n uint64) bool { return n >= math.MaxInt64-0xffff }

// readAll reads several files of one number.
func readAll(dir string, files map[string]*uint64) error {
	for file, value := range files {
		n, err := number(dir, file)
		if err != nil {
			return err
		}
		*value = n
	}
	return nil
}

// keyed reads a flat keyed file, such as memory.events.
func keyed(dir, file string) (map[string]uint64, error) {
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseKeyed(f)
}

func parseKeyed(f *os.File) (map[string]uint64, error) {
	values := make(map[string]uint64)
	s := bufio.NewScanner(f)
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", f.Name(), key, err)
		}
		values[key] = n
	}
	return values, s.Err()
}

// walk calls visit for a group and those beneath it, deepest first. The
// instance names and nests its groups as it likes, so nothing goes by path;
// groups that vanish meanwhile are passed over.
func walk(dir string, visit func(parent *os.Root, name string) error) error {
	parent, err := os.OpenRoot(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return descend(parent, filepath.Base(dir), visit)
}

func descend(parent *os.Root, name string, visit func(*os.Root, string) error) error {
	group, err := parent.OpenRoot(name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer group.Close()
	entries, err := list(group)
	if err != nil && !gone(err) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := descend(group, e.Name(), visit); err != nil {
			return err
		}
	}
	if err := visit(parent, name); err != nil && !gone(err) {
		return err
	}
	return nil
}

// list reads a directory by a plain descriptor of it: one of a Root asks after every file, and a group has many.
func list(dir *os.Root) ([]os.DirEntry, error) {
	rooted, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer rooted.Close()
	fd, err := unix.FcntlInt(rooted.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	plain := os.NewFile(uintptr(fd), rooted.Name())
	defer plain.Close()
	return plain.ReadDir(-1)
}
