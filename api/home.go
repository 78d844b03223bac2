package api

import (
	"path/filepath"

	"vps/instance/store"
)

// Home is where a host keeps its files.
type Home struct {
	Dir   string // VPS_HOME; "" for the system's
	Etc   string // configuration
	State string // what outlives a boot
	Run   string // what does not
}

// HomeAt returns the directories of the host whose home is dir, or of the system's if dir is "".
func HomeAt(dir string) (Home, error) {
	if dir == "" {
		return Home{Etc: "/etc/vps", State: "/var/lib/vps", Run: "/run/vps"}, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Home{}, err
	}
	return Home{
		Dir:   dir,
		Etc:   filepath.Join(dir, "etc"),
		State: filepath.Join(dir, "state"),
		Run:   filepath.Join(dir, "run"),
	}, nil
}

// Snapshots is the host's store of snapshots.
func (h Home) Snapshots() store.Dir { return store.In(h.State) }

func (h Home) log() string { return filepath.Join(h.Run, logName) }
