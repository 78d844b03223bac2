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

const keepers = ".keepers"

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

// Keepers moves a process of the host's own (a keeper, or the daemon) into the
// group that no instance's freeze, kill or limit touches, in every hierarchy,
// and out of the group of whoever started it.
func (h *Hierarchies) Keepers(home string, pid int) error {
	if err := checkName(home); err != nil {
		return err
	}
	for _, base := range h.bases() {
		dir := filepath.Join(base, "vps-"+home, keepers)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create cgroup of keepers: %w", err)
		}
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add keeper %d: %w", pid, err)
		}
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

// RemoveHome removes the groups of a home that has no instances and no
// keepers any more; else it does nothing and returns an error that wraps
// unix.EBUSY. ctx bounds the wait for the last keeper's end.
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
