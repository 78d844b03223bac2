// Package fdinfo reads what /proc/PID/fdinfo tells of descriptors, see proc_pid_fdinfo(5).
package fdinfo

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Info is what is told of a descriptor.
type Info struct {
	Flags uint32 // O_CLOEXEC is that of the descriptor
	Pos   uint64
	Mount int
	Ino   uint64
	Lines []Line // those of the kind of file
}

// Line is a line of a kind of file.
type Line struct{ Key, Value string }

// Read reads what is told of a descriptor of a process, by its pid here.
func Read(host, fd int) (Info, error) {
	path := fmt.Sprintf("/proc/%d/fdinfo/%d", host, fd)
	text, err := os.ReadFile(path)
	if err != nil {
		return Info{}, err
	}
	info, err := parse(text)
	if err != nil {
		return info, fmt.Errorf("read %s: %w", path, err)
	}
	return info, nil
}

// Directory is that of a process: the way there is the longer part of reading what it tells.
type Directory struct{ *os.File }

// Open opens the directory of a process, by its pid here. The caller closes it.
func Open(host int) (Directory, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/fdinfo", host))
	return Directory{f}, err
}

// Usual is the size of a buffer for what most descriptors have to tell, and more.
const Usual = 4096

// Read reads what is told of a descriptor. buf is room for it, which may be too small.
func (d Directory) Read(fd int, buf []byte) (Info, error) {
	text, err := d.text(strconv.Itoa(fd), buf)
	if err != nil {
		return Info{}, fmt.Errorf("read %s/%d: %w", d.Name(), fd, err)
	}
	info, err := parse(text)
	if err != nil {
		return info, fmt.Errorf("read %s/%d: %w", d.Name(), fd, err)
	}
	return info, nil
}

func (d Directory) text(name string, buf []byte) ([]byte, error) {
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for text := buf[:0]; ; {
		if len(text) == cap(text) {
			text = slices.Grow(text, Usual)
		}
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if n <= 0 || err != nil {
			return text, err
		}
		text = text[:len(text)+n]
	}
}

func parse(text []byte) (info Info, err error) {
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "flags":
			var flags uint64
			flags, err = strconv.ParseUint(value, 8, 32)
			info.Flags = uint32(flags)
		case "pos":
			info.Pos, err = strconv.ParseUint(value, 10, 64)
		case "mnt_id":
			info.Mount, err = strconv.Atoi(value)
		case "ino":
			info.Ino, err = strconv.ParseUint(value, 10, 64)
		default:
			info.Lines = append(info.Lines, Line{key, value})
		}
		if err != nil {
			return info, fmt.Errorf("line %q: %w", line, err)
		}
	}
	return info, nil
}

// Line returns the value of a line, "" if there is none.
func (i *Info) Line(key string) string {
	for _, l := range i.Lines {
		if l.Key == key {
			return l.Value
		}
	}
	return ""
}

// Hex parses a line with a hexadecimal number.
func (i *Info) Hex(key string) (uint64, error) {
	v, err := strconv.ParseUint(i.Line(key), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("fdinfo: %s: %w", key, err)
	}
	return v, nil
}
