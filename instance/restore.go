package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/config"
	"vps/dump"
	"vps/object/recordset"
	"vps/pager/lazy"
	"vps/restore"
	"vps/snapshot"
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
		if err = i.restoreFrom(ctx, r, opt, warn); err != nil {
			err = fmt.Errorf("restore %s: %w", id, err)
		}
		done()
	}
	if err == nil && opt.Wait {
		err = i.awaitFilled(ctx, progress)
	}
	return h.audit(ctx, "restore", id, err)
}

func (i *instance) restoreFrom(ctx context.Context, r io.Reader, opt RestoreOptions, warn func(string)) error {
	s, err := i.host.openSnapshot(r)
	if err != nil {
		return err
	}
	handedOver := false
	defer func() {
		if !handedOver {
			s.Close()
		}
	}()
	here, err := snapshot.Header(i.id)
	if err != nil {
		return err
	}
	if err := s.Header().CheckHost(here); err != nil {
		return err
	}
	set, err := recordset.Load(s.Snapshot)
	if err != nil {
		return err
	}
	if err := i.checkAge(s.Header(), set.Instance); err != nil {
		if !opt.Force {
			return err
		}
		warn(err.Error())
	}
	plan, err := restore.Prepare(s.Snapshot, set)
	if err != nil {
		return err
	}
	i.cancelRetry()
	cfg, err := i.host.restoredConfig(i, set.Instance, opt.Config)
	if err != nil {
		return err
	}
	var later func(context.Context, []lazy.Memory) error
	if opt.Lazy {
		later = func(ctx context.Context, memories []lazy.Memory) error {
			err := i.fillLater(ctx, s, memories)
			handedOver = err == nil
			return err
		}
	}
	return i.restore(ctx, cfg, plan, set.Instance, later, opt, warn)
}

// openSnapshot opens the snapshot that a reader gives.
func (h *Host) openSnapshot(r io.Reader) (*dump.SnapshotFile, error) {
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
			}
			own := os.NewFile(uintptr(fd), f.Name())
			s, err := dump.OpenFrom(own)
			if err != nil {
				return nil, errors.Join(err, own.Close())
			}
			return s, nil
		}
	}
	return dump.Spool(r, h.dirs.state)
}

// restoredConfig chooses the configuration of a restored instance: the one given, else its file, else the one that it had here
// last, else what the snapshot says, with default rights only.
func (h *Host) restoredConfig(i *instance, info *dump.Instance, given *config.Config) (*config.Config, error) {
	cfg, err := h.configure(i, given)
	if err == nil || given != nil || !errors.Is(err, ErrNotFound) {
		return cfg, err
	}
	own, perr := config.Parse("the snapshot's configuration", strings.NewReader(info.GetConfig()))
	if perr != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, perr)
	}
	safe, dropped := own.DefaultRights()
	safe.Name = i.id
	if err := safe.Validate(); err != nil {
		return nil, fmt.Errorf("%w; the snapshot's own cannot be used without %s: give one with --config", err, strings.Join(dropped, ", "))
	}
	return safe, nil
}

// restore builds the cell and what is in it. The caller's operation has the instance.
func (i *instance) restore(ctx context.Context, cfg *config.Config, plan *restore.Plan, info *dump.Instance, later func(context.Context, []lazy.Memory) error, opt RestoreOptions, warn func(string)) error {
	bootID, err := uuidFrom(info.GetBootId())
	if err != nil {
		return err
	}
	b := birth{state: Restoring, what: "restore", bootID: bootID, adjust: func(spec *cell.Spec) error {
		spec.Slots, spec.SlotSize = cell.DefaultSlots+plan.Slots, cell.DefaultSlotSize
		var err error
		spec.ArenaBase, err = plan.ArenaBase(uint64(spec.Slots*spec.SlotSize) + 4096)
		spec.Hostname = info.GetHostname()
		spec.Monotonic, spec.Boottime = time.Duration(info.GetClocks().GetMonotonic()), time.Duration(info.GetClocks().GetBoottime())
		return err
	}}
	if err := i.create(ctx, cfg, b); err != nil {
		return err
	}
	err = i.into(ctx, plan, later, opt, warn)
	if err == nil && opt.Resume {
		err = i.group.Thaw(ctx)
	}
	if err != nil {
		return errors.Join(err, i.abandon(context.WithoutCancel(ctx)))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec.Started = time.Now()
	i.rec.Restores++
	i.rec.Saved = nil
	if id, err := uuidFrom(info.GetUuid()); err == nil && id != (uuid{}) {
		i.rec.UUID = id
	}
	i.rec.Age.adopt(info)
	if !opt.Resume {
		i.rec.Suspended = time.Now()
		return i.setLocked(Suspended, "restore")
	}
	return i.setLocked(Running, "restore")
}

func (i *instance) into(ctx context.Context, plan *restore.Plan, later func(context.Context, []lazy.Memory) error, opt RestoreOptions, warn func(string)) error {
	r, err := rights(i.cfg)
	if err != nil {
		return err
	}
	c := i.cell
	first, _ := c.FreeSlots()
	return plan.Into(ctx, restore.Target{
		Arena: c.Arena, Page: c.Init.Page, PID: c.Init.PID, PidFD: c.Init.PidFD, FirstSlot: first,
		Socket: c.Socket, SocketFD: c.SocketFD, Group: i.group, Console: c.Console,
		Filter: r.Filter, Bound: r.Capabilities, Force: opt.Force,
		Warn: warn, Lazy: later,
	})
}
