package account

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// host is the group of the daemon. No instance's freeze, kill or limit touches
// it.
const host = ".host"

// makeHome makes vps-HOME in every hierarchy.
func (h *Hierarchies) makeHome(home string) error {
	for _, base := range h.bases() {
		dir := filepath.Join(base, "vps-"+home)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create cgroup of host home: %w", err)
		}
	}
	if h.delegated {
		if err := h.delegate(h.v2); err != nil {
			return err
		}
	}
	return h.delegate(filepath.Join(h.v2, "vps-"+home))
}

// Join moves the calling process, a daemon, out of the groups of whoever
// started it into groups of its own, in every hierarchy.
func (h *Hierarchies) Join(home string) error {
	if err := checkName(home); err != nil {
		return err
	}
	for _, base := range h.bases() {
		dir := filepath.Join(base, "vps-"+home, host)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create cgroup of the daemon: %w", err)
		}
		if err := moveSelf(dir); err != nil {
			return err
		}
	}
	return nil
}

// Leave undoes Join: the calling process goes into the base groups. It wraps
// unix.EBUSY where a base has given its controllers to its children and takes
// no members; then the daemon's group stays until it has ended.
func (h *Hierarchies) Leave() error {
	for _, base := range h.bases() {
		if err := moveSelf(base); err != nil {
			return err
		}
	}
	return nil
}

func moveSelf(dir string) error {
	if err := write(dir, "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
		return fmt.Errorf("move the daemon to another cgroup: %w", err)
	}
	return nil
}

// List returns the names of the instances that have groups, whether or not
// anything runs in them. A home that has none is no error.
func (h *Hierarchies) List(home string) ([]string, error) {
	if err := checkName(home); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(h.v2, "vps-"+home))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// RemoveHome removes the groups of a home that has no instances and whose
// daemon is gone or has called [Hierarchies.Leave]; else it returns an error that
// wraps unix.EBUSY. ctx bounds the wait for the last process's end.
func (h *Hierarchies) RemoveHome(ctx context.Context, home string) error {
	ids, err := h.List(home)
	if err != nil {
		return err
	}
	if len(ids) > 0 {
		return fmt.Errorf("remove cgroup of host home: instance %s: %w", ids[0], unix.EBUSY)
	}
	for _, base := range h.bases() {
		if err := removeTree(ctx, filepath.Join(base, "vps-"+home)); err != nil {
			return err
		}
	}
	return nil
}
