package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/config"
	"vps/dump"
	"vps/instance/blueprint"
	"vps/instance/registry"
	"vps/object/mount"
)

// Create makes an instance up to its init, which waits before its execve. cfg is as for [Host.Start].
func (h *Host) Create(ctx context.Context, id string, cfg *config.Config) error {
	return h.audit(ctx, "create", id, h.start(ctx, "create", id, cfg, false))
}

// Start runs an instance: one that was created, or one made from cfg; nil: from its file in DIR/etc, else from the
// configuration that it had last. A start that fails leaves nothing behind.
func (h *Host) Start(ctx context.Context, id string, cfg *config.Config) error {
	return h.audit(ctx, "start", id, h.start(ctx, "start", id, cfg, true))
}

func (h *Host) start(ctx context.Context, verb, id string, cfg *config.Config, run bool) error {
	states := []State{"", Dead}
	if run {
		states = append(states, Created)
	}
	i, done, err := h.claim(verb, id, states...)
	if err != nil {
		return err
	}
	defer done()
	i.cancelRetry()
	if i.rec.State != Created {
		cfg, err = h.configure(i, cfg)
		if err == nil {
			err = i.create(ctx, cfg, starting)
		}
	}
	if err == nil && run {
		err = i.run(ctx, "start")
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, id, err)
	}
	return nil
}

// configure finds the configuration to start from.
func (h *Host) configure(i *instance, cfg *config.Config) (*config.Config, error) {
	if cfg == nil {
		var err error
		cfg, err = config.Load(h.home.Config(i.id))
		if errors.Is(err, fs.ErrNotExist) && i.rec.State != "" {
			cfg, err = i.cfg, nil
		}
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%w, and no configuration %s", ErrNotFound, h.home.Config(i.id))
			}
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	own := *cfg
	own.Name = i.id
	if err := own.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return &own, nil
}

// birth is how an instance comes to be: by a start, or by a restore, which wants more of its cell.
type birth struct {
	state  State // meanwhile
	what   string
	bootID registry.UUID          // zero: a new one
	adjust func(*cell.Spec) error // nil: nothing
	were   []*dump.Interface      // the interfaces that the host had given it
}

var starting = birth{state: Creating, what: "create"}

// create builds the instance's cell. On an error everything is as before: not there, or dead with its last record.
// The caller's operation has the instance.
func (i *instance) create(ctx context.Context, cfg *config.Config, b birth) (err error) {
	if b.state == Creating {
		if err := i.startFresh(); err != nil {
			return err
		}
	}
	before, oldCfg := i.rec, i.cfg
	i.mu.Lock()
	i.cfg = cfg
	i.alive()
	i.mu.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, i.undo(context.WithoutCancel(ctx), before, oldCfg))
		}
	}()
	if b.bootID == (registry.UUID{}) {
		if b.bootID, err = registry.NewUUID(); err != nil {
			return err
		}
	}
	if err := i.register(b); err != nil {
		return err
	}
	return i.build(ctx, b)
}

// undo gives the instance back the state that it had before a create that failed.
func (i *instance) undo(ctx context.Context, before registry.Record, cfg *config.Config) error {
	err := i.clean(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	defer i.ended()
	if before.State == "" {
		return errors.Join(err, i.forget())
	}
	if i.rec.OwnRange && !before.OwnRange {
		err = errors.Join(err, i.host.ids.Release(i.rec.FirstUID, i.host.home.Records().Path(i.id)))
	}
	i.rec, i.cfg = before, cfg
	return errors.Join(err, i.setLocked(before.State, "undo"))
}

// register writes the record of an instance that is being created, with its id range.
func (i *instance) register(b birth) error {
	id := i.rec.UUID
	if id == (registry.UUID{}) {
		var err error
		if id, err = registry.NewUUID(); err != nil {
			return err
		}
	}
	save := func(first int, own bool) error {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.rec.FirstUID, i.rec.OwnRange = first, own
		i.rec.UUID, i.rec.BootID = id, b.bootID
		i.rec.Created, i.rec.Exit, i.rec.Cell, i.rec.Lost, i.rec.Impatient = time.Now(), nil, nil, "", nil
		return i.setLocked(b.state, b.what)
	}
	path := i.host.home.Records().Path(i.id)
	if ns := i.cfg.UserNS; ns.Host || ns.First != 0 {
		if i.rec.OwnRange {
			if err := i.host.ids.Release(i.rec.FirstUID, path); err != nil {
				return err
			}
		}
		return save(int(ns.First), false)
	}
	if i.rec.OwnRange {
		return save(i.rec.FirstUID, true)
	}
	return i.host.ids.Take(path, func(first int) error { return save(first, true) })
}

// build makes what the record says: the control group, the root's mount and the cell.
func (i *instance) build(ctx context.Context, b birth) error {
	if err := os.MkdirAll(i.host.home.Instance(i.id), 0o711); err != nil {
		return err
	}
	if i.cfg.RootMount != "" || i.cfg.RootUnmount != "" {
		i.mu.Lock()
		i.rec.Mounted = true
		err := i.save()
		i.mu.Unlock()
		if err != nil {
			return err
		}
		if err := blueprint.Command(ctx, i.cfg, "ROOT_MOUNT", i.cfg.RootMount); err != nil {
			return err
		}
	}
	if info, err := os.Stat(i.cfg.Root); err != nil {
		return fmt.Errorf("FSROOT: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("FSROOT %s is not a directory", i.cfg.Root)
	}
	if _, err := blueprint.Rights(i.cfg); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	group, err := i.host.tree.Create(i.host.key, i.id, uint32(i.rec.FirstUID))
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.group = group
	i.mu.Unlock()
	spec, err := blueprint.Spec(i.cfg, blueprint.Place{
		ID: i.id, Run: i.host.home.Instance(i.id), Rulesets: i.host.home.Rulesets(), FirstUID: i.rec.FirstUID,
	})
	if err != nil {
		return err
	}
	spec.Group, spec.BootID = i.group, i.rec.BootID.String()
	if err := blueprint.Bound(group, i.cfg, spec.Devices, i.host.log); err != nil {
		return err
	}
	if b.adjust != nil {
		if err := b.adjust(&spec); err != nil {
			return err
		}
	}
	c, err := cell.Build(ctx, spec)
	if err != nil {
		return err
	}
	if i.rec.Mounts, err = mount.Points(c.Init.PID); err != nil {
		return errors.Join(err, c.Destroy(context.WithoutCancel(ctx)))
	}
	if err := i.connect(ctx, c.Init.PID, b); err != nil {
		return errors.Join(err, c.Destroy(context.WithoutCancel(ctx)))
	}
	if b.state == Creating {
		b.state = Created
	}
	return i.adopt(c, b.state, b.what)
}

// adopt makes a cell the instance's own and lets its end be waited for.
func (i *instance) adopt(c *cell.Cell, state State, what string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	st := c.State()
	i.cell, i.rec.Cell, i.over = c, &st, make(chan struct{})
	over := i.over
	i.host.tasks.Go(func() { i.supervise(c, over) })
	return i.setLocked(state, what)
}

// run turns the parked init into the program. On an error the cell is gone, and with it an instance that never ran.
func (i *instance) run(ctx context.Context, what string) error {
	spec, err := blueprint.Init(i.cfg)
	if err == nil {
		err = i.cell.ExecInit(ctx, spec)
	}
	if err != nil {
		return errors.Join(err, i.abandon(context.WithoutCancel(ctx)))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.rec.State != Created {
		return nil // its init has ended already
	}
	i.rec.Started = time.Now()
	i.rec.Starts++
	i.rec.Parked = false
	return i.setLocked(Running, what)
}

// abandon ends an instance whose init could not be run.
func (i *instance) abandon(ctx context.Context) error {
	i.mu.Lock()
	runs, over := i.rec.Starts+i.rec.Restores, i.over
	i.ending = registry.ReasonFailed
	i.idle.Broadcast()
	err := i.cell.Process().Signal(unix.SIGKILL)
	i.mu.Unlock()
	if err != nil && !gone(err) {
		return err
	}
	<-over
	if runs > 0 {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.forget()
}

// clean removes what processes of the instance leave behind, and kills those that are there. It may be called for anything half made.
func (i *instance) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	i.mu.Lock()
	c, group := i.cell, i.group
	i.cell, i.group = nil, nil
	i.filling, i.rec.Fill = nil, nil
	i.mu.Unlock()
	var errs []error
	errs = append(errs, i.disconnect())
	if c != nil {
		errs = append(errs, c.Destroy(ctx))
	}
	if group != nil {
		errs = append(errs, group.KillAll(), group.Remove(ctx))
	}
	if i.rec.Mounted {
		errs = append(errs, blueprint.Command(ctx, i.cfg, "ROOT_UNMOUNT", i.cfg.RootUnmount))
		i.mu.Lock()
		i.rec.Mounted = false
		i.mu.Unlock()
	}
	return errors.Join(errs...)
}

// cleanTimeout is how long killed processes may take to end.
const cleanTimeout = 30 * time.Second
