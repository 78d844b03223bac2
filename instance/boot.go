package instance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vps/config"
)

// Autostart starts the instances whose configuration files say AUTOSTART, in the order of START_ORDER. One that fails
// does not keep others from being started; what runs already stays as it is.
func (h *Host) Autostart(ctx context.Context) error {
	entries, err := os.ReadDir(h.dirs.etc)
	if err != nil {
		return err
	}
	var all []*config.Config
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
		cfg.Name = name
		if cfg.Autostart {
			all = append(all, cfg)
		}
	}
	slices.SortStableFunc(all, func(a, b *config.Config) int { return cmp.Compare(a.StartOrder, b.StartOrder) })
	for _, cfg := range all {
		if err := h.Start(ctx, cfg.Name, cfg); err != nil && !errors.Is(err, ErrState) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Shutdown does with each running instance what its configuration says for the shutdown of the host, in the reverse of
// START_ORDER. save takes a snapshot of one, which is then to be stopped; if it fails, or ctx ends, the instance is stopped as others are.
func (h *Host) Shutdown(ctx context.Context, save func(ctx context.Context, id string) error) error {
	h.mu.Lock()
	all := h.sorted()
	h.mu.Unlock()
	slices.SortStableFunc(all, func(a, b *instance) int { return cmp.Compare(b.cfg.StartOrder, a.cfg.StartOrder) })
	var errs []error
	for _, i := range all {
		i.mu.Lock()
		running, what := i.rec.State == Running, i.cfg.HostShutdown
		i.mu.Unlock()
		if !running {
			continue
		}
		var err error
		switch what {
		case config.ShutdownSuspend:
			err = h.Suspend(ctx, i.id)
		case config.ShutdownSnapshot:
			if err = save(ctx, i.id); err != nil {
				err = errors.Join(err, h.Stop(ctx, i.id, 0))
			}
		default:
			err = h.Stop(ctx, i.id, 0)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
