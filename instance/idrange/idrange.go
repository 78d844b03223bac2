// Package idrange gives instances ranges of the machine's user and group ids, each to one instance, of whatever home.
package idrange

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// File is the path of the file that says who has which range. It is locked while it is changed.
type File string

// Machine is the file of this machine.
const Machine File = "/var/lib/vps-ids/ranges.json"

// Size is the number of ids in a range.
const Size = 65536

// Ranges are in a part of the 32 bits that systemd's UIDS-GIDS document leaves to nobody.
const (
	firstRange = 0x70000000
	lastRange  = 0x7fff0000 - Size
)

// ErrNone says that the machine has no free range.
var ErrNone = errors.New("no free range of 65536 user ids")

// ranges maps the first id of a range to the record of the instance that has it.
type ranges map[int]string

// Take gives a free range to the instance whose record is at path. save writes the record: a range whose owner's record is not
// there is free.
func (f File) Take(path string, save func(first int) error) error {
	return f.change(func(r ranges) error {
		taken, err := subordinate()
		if err != nil {
			return err
		}
		for first := firstRange; first <= lastRange; first += Size {
			owner, used := r[first]
			if used && exists(owner) || taken(first) {
				continue
			}
			if err := save(first); err != nil {
				return err
			}
			r[first] = path
			return nil
		}
		return ErrNone
	})
}

// Release gives back the range of the instance whose record is at path.
func (f File) Release(first int, path string) error {
	return f.change(func(r ranges) error {
		if r[first] == path {
			delete(r, first)
		}
		return nil
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// change lets edit change the ranges, under a lock of the whole machine.
func (f File) change(edit func(ranges) error) error {
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(string(f), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", f, err)
	}
	r := make(ranges)
	if err := json.NewDecoder(file).Decode(&r); err != nil {
		if info, serr := file.Stat(); serr != nil || info.Size() != 0 {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	if err := edit(r); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	// In place, since the lock is on this very file.
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = file.WriteAt(append(data, '\n'), 0)
	return err
}

// subordinate tells which ranges meet ids that subuid(5) or subgid(5) gives to somebody.
func subordinate() (taken func(first int) bool, err error) {
	type span struct{ first, last int }
	var spans []span
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for s := bufio.NewScanner(strings.NewReader(string(data))); s.Scan(); {
			fields := strings.Split(s.Text(), ":")
			if len(fields) != 3 {
				continue
			}
			first, err1 := strconv.Atoi(fields[1])
			count, err2 := strconv.Atoi(fields[2])
			if err1 == nil && err2 == nil {
				spans = append(spans, span{first, first + count - 1})
			}
		}
	}
	return func(first int) bool {
		for _, s := range spans {
			if s.first < first+Size && first <= s.last {
				return true
			}
		}
		return false
	}, nil
}
