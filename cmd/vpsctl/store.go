package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vps/api"
	"vps/dump"
)

// Files in the host's store are named ID-DATE.vps.
const (
	storeDate   = "20060102-150405.000"
	storeSuffix = ".vps"
)

// storePath is where a snapshot of an instance goes that nobody gave a name.
func storePath(home api.Home, id string) (string, error) {
	if err := os.MkdirAll(home.Snapshots(), 0o700); err != nil {
		return "", err
	}
	return filepath.Join(home.Snapshots(), id+"-"+time.Now().UTC().Format(storeDate)+storeSuffix), nil
}

// stored is a file of the store.
type stored struct {
	ID     string    `json:"id"`
	File   string    `json:"file"`
	Time   time.Time `json:"time"`
	Bytes  int64     `json:"bytes"`
	Kernel string    `json:"kernel,omitempty"`
	Error  string    `json:"error,omitempty"` // why it cannot be restored
}

// store lists the snapshots of an instance, or of all if id is "", the oldest first.
func store(home api.Home, id string) ([]stored, error) {
	entries, err := os.ReadDir(home.Snapshots())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := []stored{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), storeSuffix)
		at := len(name) - len(storeDate)
		if !ok || at < 2 || name[at-1] != '-' {
			continue
		}
		date, err := time.Parse(storeDate, name[at:])
		if err != nil || id != "" && id != name[:at-1] {
			continue
		}
		s := stored{ID: name[:at-1], File: filepath.Join(home.Snapshots(), e.Name()), Time: date}
		if err := s.look(); err != nil {
			s.Error = err.Error()
		}
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b stored) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// look reads what the file says of itself.
func (s *stored) look() error {
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

// latest is the newest snapshot of an instance in the store.
func latest(home api.Home, id string) (string, error) {
	all, err := store(home, id)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", fmt.Errorf("no snapshot of it in %s; give a FILE", home.Snapshots())
	}
	return all[len(all)-1].File, nil
}

func (a *app) snapshotsCmd() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:               "snapshots [ID]",
		Short:             "List the snapshots in the host's store",
		Long:              "snapshots lists the snapshots that snapshot made without a FILE, of one instance or of all.",
		Example:           "  vpsctl snapshots\n  vpsctl snapshots web --json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.complete(1),
		RunE: func(_ *cobra.Command, args []string) error {
			home, err := api.HomeAt(a.home)
			if err != nil {
				return err
			}
			id := ""
			if len(args) == 1 {
				id = args[0]
			}
			all, err := store(home, id)
			if err != nil {
				return fmt.Errorf("snapshots: %w", err)
			}
			if a.json {
				return a.document("snapshots", all)
			}
			rows := make([]string, len(all))
			for n, s := range all {
				rows[n] = fmt.Sprintf("%s\t%s\t%s\t%s", s.ID, stamp(s.Time), size(uint64(s.Bytes)), joinNonEmpty(s.File, s.Error))
			}
			return a.table("NAME\tTIME\tSIZE\tFILE", rows)
		},
	})
}
