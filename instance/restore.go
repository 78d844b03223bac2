package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"vps/config"
	"vps/dump/convert"
	"vps/instance/image"
	"vps/instance/registry"
	"vps/suspend"
)

// Restore builds an instance from a snapshot, which is read from r: a file is read where it lies, anything else is stored first. The
// instance is then suspended, unless opt says otherwise. A restore that fails leaves nothing behind.
func (h *Host) Restore(ctx context.Context, id string, r io.Reader, opt RestoreOptions, progress func(Progress)) error {
	warn := func(text string) {
		h.log.Warn("restore", "instance", id, "passed over", text)
		if progress != nil {
			progress(Progress{Warning: text})
		}
	}
	i, done, err := h.claim("restore", id, "", Dead)
	if err == nil {
		if err = i.restore(ctx, r, opt, warn); err != nil {
			err = fmt.Errorf("restore %s: %w", id, err)
		}
		done()
	}
	if err == nil && opt.Wait {
		err = i.awaitFilled(ctx, progress)
	}
	return h.audit(ctx, "restore", id, err)
}

// restore reads the snapshot and builds what is in it. The caller's operation has the instance.
func (i *instance) restore(ctx context.Context, r io.Reader, opt RestoreOptions, warn func(string)) error {
	im, err := image.Open(r, i.host.home.State)
	if err != nil {
		return err
	}
	defer im.Close()
	if err := i.rec.CheckAge(im.Header, im.Info); err != nil {
		if !opt.Force {
			return err
		}
		warn(err.Error())
	}
	if err := opt.Readdress.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	i.cancelRetry()
	cfg, err := i.restoredConfig(im, opt.Config)
	if err != nil {
		return err
	}
	if cfg, err = opt.network(im, cfg); err != nil {
		return err
	}
	err = i.create(ctx, cfg, birth{state: Restoring, what: "restore", bootID: im.BootID, adjust: im.Adjust, were: im.Given()})
	if err != nil {
		return err
	}
	var later image.Later
	if opt.Lazy {
		later = i.fillLater
	}
	err = im.Into(ctx, i.cell, i.group, cfg, later, opt.Force, warn)
	if err == nil && opt.Resume {
		err = suspend.Resume(ctx, i.group, i.network())
	}
	if err != nil {
		return errors.Join(err, i.abandon(context.WithoutCancel(ctx)))
	}
	if !opt.Resume {
		i.lendPatience()
	}
	return i.restored(im, opt.Resume)
}

// restoredConfig chooses the configuration of a restored instance: the one given, else its file, else the one that it had here
// last, else what the snapshot says, with default rights only.
func (i *instance) restoredConfig(im *image.Image, given *config.Config) (*config.Config, error) {
	cfg, err := i.host.configure(i, given)
	if err == nil || given != nil || !errors.Is(err, ErrNotFound) {
		return cfg, err
	}
	if cfg, err = im.Config(i.id); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return cfg, nil
}

// network changes an image and its configuration to the network that is wanted.
func (opt RestoreOptions) network(im *image.Image, cfg *config.Config) (*config.Config, error) {
	if opt.Unplug {
		own := *cfg
		own.Interfaces, own.Networks = nil, nil
		return &own, im.Edit(convert.Unplug)
	}
	if len(opt.Readdress) == 0 {
		return cfg, nil
	}
	return cfg.Readdress(opt.Readdress), im.Edit(opt.Readdress.Edit)
}

// restored notes that the instance is what the image was.
func (i *instance) restored(im *image.Image, runs bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec.Started = time.Now()
	i.rec.Restores++
	i.rec.Parked = false
	i.rec.Saved = nil
	if im.UUID != (registry.UUID{}) {
		i.rec.UUID = im.UUID
	}
	i.rec.Age.Adopt(im.Info)
	if runs {
		return i.setLocked(Running, "restore")
	}
	i.rec.Suspended = time.Now()
	return i.setLocked(Suspended, "restore")
}
