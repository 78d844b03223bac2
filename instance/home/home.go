// Package home knows where a host keeps its files.
package home

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vps/config"
	"vps/instance/registry"
	"vps/instance/store"
)

// Home is the directories of a host.
type Home struct {
	Dir   string // VPS_HOME; "" for the system's
	Etc   string // configuration
	State string // what outlives a boot
	Run   string // what does not
}

// At returns the home in a directory, with etc, state and run in it, or that of the system if dir is "".
func At(dir string) (Home, error) {
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

// Make makes the directories that are not there.
func (h Home) Make() error {
	for _, dir := range []string{h.Etc, h.State, h.Run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Key is a hash of the home, which is part of every name that is made for it.
func (h Home) Key() string {
	sum := sha256.Sum256([]byte(h.State))
	return hex.EncodeToString(sum[:4])
}

// ErrLocked says that another daemon has a home.
var ErrLocked = errors.New("another daemon has this home")

// Lock takes the home for as long as the file is open.
func (h Home) Lock() (*os.File, error) {
	path := filepath.Join(h.Run, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%s: %w", path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Config is the configuration file of an instance.
func (h Home) Config(id string) string { return filepath.Join(h.Etc, config.FileName(id)) }

// Configs returns the configuration files that there are, by the names of their instances.
func (h Home) Configs() (map[string]string, error) {
	entries, err := os.ReadDir(h.Etc)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	prefix, suffix, _ := strings.Cut(config.FileName("*"), "*")
	files := make(map[string]string)
	for _, e := range entries {
		id, _ := strings.CutSuffix(strings.TrimPrefix(e.Name(), prefix), suffix)
		if config.ValidName(id) == nil && e.Name() == config.FileName(id) {
			files[id] = h.Config(id)
		}
	}
	return files, nil
}

// Rulesets is the file of device rulesets.
func (h Home) Rulesets() string { return filepath.Join(h.Etc, "devfs.rules") }

// Instance is the run directory of an instance.
func (h Home) Instance(id string) string { return filepath.Join(h.Run, id) }

// Booted is the file that says in which boot of the host its instances were brought up.
func (h Home) Booted() string { return filepath.Join(h.Run, "booted") }

// Records is the registry.
func (h Home) Records() registry.Dir { return registry.Dir(h.State) }

// Snapshots is the store of snapshots.
func (h Home) Snapshots() store.Dir { return store.Dir(filepath.Join(h.State, "snapshots")) }
