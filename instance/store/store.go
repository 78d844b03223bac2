// Package store is the directory in which a host keeps snapshots.
package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vps/dump"
	"vps/dump/atomicfile"
)

// Dir is a directory of snapshots, which may not be there yet. Files in it are named ID-DATE.vps.
type Dir string

const (
	dateForm = "20060102-150405.000"
	suffix   = ".vps"
)

// Create makes a file for a snapshot of an instance that is taken now.
func (d Dir) Create(id string) (*atomicfile.File, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	return atomicfile.Create(filepath.Join(string(d), id+"-"+time.Now().UTC().Format(dateForm)+suffix))
}

// Snapshot is a file of the store.
type Snapshot struct {
	ID     string    `json:"id"`
	File   string    `json:"file"`
	Time   time.Time `json:"time"`
	Bytes  int64     `json:"bytes"`
	Kernel string    `json:"kernel,omitempty"`
	Error  string    `json:"error,omitempty"` // why it cannot be restored
}

// List returns the snapshots of an instance, or of all if id is "", the oldest first.
func (d Dir) List(id string) ([]Snapshot, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := []Snapshot{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		at := len(name) - len(dateForm)
		if !ok || at < 2 || name[at-1] != '-' {
			continue
		}
		date, err := time.Parse(dateForm, name[at:])
		if err != nil || id != "" && id != name[:at-1] {
			continue
		}
		s := Snapshot{ID: name[:at-1], File: filepath.Join(string(d), e.Name()), Time: date}
		if err := s.look(); err != nil {
			s.Error = err.Error()
		}
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b Snapshot) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// look reads what the file says of itself.
func (s *Snapshot) look() error {
	f, err := os.Open(s.File)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s.Bytes = info.Size()
	r, err := dump.NewReader(f)
	if err != nil {
		return err
	}
	s.Kernel = r.Header().GetKernel()
	return nil
}

// Latest returns the path of the newest snapshot of an instance; an fs.ErrNotExist if there is none.
func (d Dir) Latest(id string) (string, error) {
	all, err := d.List(id)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", fs.ErrNotExist
	}
	return all[len(all)-1].File, nil
}
