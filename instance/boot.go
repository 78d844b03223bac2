package instance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vps/config"
)

// Boot is Autostart where nobody has called it since the host came up, or [Host.Shutdown] ended: a daemon that is started again
// starts nothing that was stopped.
func (h *Host) Boot(ctx context.Context) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	if last, err := os.ReadFile(h.bootPath()); err == nil && bytes.Equal(last, boot) {
		return nil
	}
	err = h.Autostart(ctx)
	return errors.Join(err, os.WriteFile(h.bootPath(), boot, 0o600))
}

// bootPath is the file that says in which boot of the host the instances were brought up.
func (h *Host) bootPath() string { return filepath.Join(h.dirs.run, "booted") }

// Autostart brings up, in the order of START_ORDER, the instances whose memory was saved when the host went down, and those
// whose configuration files say AUTOSTART. One that fails does not keep others from being started; what runs already stays as it is.
func (h *Host) Autostart(ctx context.Context) error {
	saved := h.saved()
	starts, err := h.autostarts()
	all := saved
	for _, s := range starts {
		// What was saved is not started anew, not even if it cannot be restored.
		if !slices.ContainsFunc(saved, func(o bringUp) bool { return o.id == s.id }) {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b bringUp) int { return cmp.Compare(a.order, b.order) })
	errs := []error{err}
	for _, one := range all {
		if err := one.do(ctx); err != nil && !errors.Is(err, ErrState) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// bringUp is an instance that is to be brought up.
type bringUp struct {
	id    string
	order int
	do    func(context.Context) error
}

// autostarts reads the configuration files.
func (h *Host) autostarts() (all []bringUp, err error) {
	entries, err := os.ReadDir(h.dirs.etc)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		name, _ := strings.CutSuffix(strings.TrimPrefix(e.Name(), "vps_"), ".conf")
		if config.ValidName(name) != nil || e.Name() != config.FileName(name) {
			continue
		}
		cfg, err := config.Load(filepath.Join(h.dirs.etc, e.Name()))
		if err != nil {
			errs = append(errs, fmt.Errorf("autostart %s: %w", name, err))
			continue
		}
		if cfg.Autostart {
			all = append(all, bringUp{name, cfg.StartOrder, func(ctx context.Context) error { return h.Start(ctx, name, cfg) }})
		}
	}
	return all, errors.Join(errs...)
}

// saved finds the instances whose memory was saved.
func (h *Host) saved() (all []bringUp) {
	h.mu.Lock()
	instances := h.sorted()
	h.mu.Unlock()
	for _, i := range instances {
		i.mu.Lock()
		if s := i.rec.Saved; s != nil && i.rec.State == Dead {
			all = append(all, bringUp{i.id, i.cfg.StartOrder, func(ctx context.Context) error { return h.restoreSaved(ctx, i, *s) }})
		}
		i.mu.Unlock()
	}
	return all
}

// restoreSaved restores what was saved. If that fails the instance stays dead, with its file.
func (h *Host) restoreSaved(ctx context.Context, i *instance, s saved) error {
	f, err := os.Open(s.File)
	if err == nil {
		err = h.Restore(ctx, i.id, f, RestoreOptions{Resume: s.Resume}, nil)
		f.Close()
	}
	if err == nil {
		if s.Keep {
			return nil
		}
		return os.Remove(s.File)
	}
	h.hub.send(Event{Time: time.Now(), ID: i.id, State: Dead, What: "restore-failed"})
	return fmt.Errorf("autostart %s: %w; %s", i.id, err, s.advice(i.id))
}
