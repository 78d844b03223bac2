package instance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"vps/config"
	"vps/instance/registry"
)

// Boot is Autostart where nobody has called it since the host came up, or [Host.Shutdown] ended: a daemon that is started again
// starts nothing that was stopped.
func (h *Host) Boot(ctx context.Context) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	if last, err := os.ReadFile(h.home.Booted()); err == nil && bytes.Equal(last, boot) {
		return nil
	}
	err = h.Autostart(ctx)
	return errors.Join(err, os.WriteFile(h.home.Booted(), boot, 0o600))
}

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
	slices.SortFunc(all, func(a, b bringUp) int { return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.id, b.id)) })
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
	files, err := h.home.Configs()
	if err != nil {
		return nil, err
	}
	var errs []error
	for id, file := range files {
		cfg, err := config.Load(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("autostart %s: %w", id, err))
		} else if cfg.Autostart {
			all = append(all, bringUp{id, cfg.StartOrder, func(ctx context.Context) error { return h.Start(ctx, id, cfg) }})
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
func (h *Host) restoreSaved(ctx context.Context, i *instance, s registry.Saved) error {
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
	h.events.Send(Event{Time: time.Now(), ID: i.id, State: Dead, What: "restore-failed"})
	return fmt.Errorf("autostart %s: %w; %s", i.id, err, s.Advice(i.id))
}
