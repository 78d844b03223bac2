// Package image is a snapshot as the manager of an instance sees it: taken of one, and opened to be restored into one.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"vps/cell"
	"vps/config"
	"vps/dump"
	"vps/instance/blueprint"
	"vps/instance/registry"
	"vps/object"
	"vps/object/recordset"
	"vps/restore"
	"vps/snapshot"
)

// Image is a snapshot that has been read and checked, for a restore on this host.
type Image struct {
	Header *dump.Header
	Info   *dump.Instance
	UUID   registry.UUID // of the instance; zero: not known
	BootID registry.UUID // likewise

	snapshot *dump.Snapshot
	set      *object.Set
	plan     *restore.Plan
	close    func() error
}

// Open reads a snapshot from r: a file where it lies, anything else after storing it in the directory spool. The caller closes the
// image.
func Open(r io.Reader, spool string) (*Image, error) {
	im := &Image{close: func() error { return nil }}
	if err := im.open(r, spool); err != nil {
		return nil, err
	}
	if err := im.load(); err != nil {
		return nil, errors.Join(err, im.Close())
	}
	return im, nil
}

func (im *Image) open(r io.Reader, spool string) (err error) {
	if f, ok := r.(*os.File); ok {
		if info, serr := f.Stat(); serr == nil && info.Mode().IsRegular() {
			im.snapshot, err = dump.Open(f, info.Size())
			return err
		}
	}
	s, err := dump.Spool(r, spool)
	if err == nil {
		im.snapshot, im.close = s.Snapshot, s.Close
	}
	return err
}

func (im *Image) load() error {
	im.Header = im.snapshot.Header()
	here, err := snapshot.Header("")
	if err != nil {
		return err
	}
	if err := im.Header.CheckHost(here); err != nil {
		return err
	}
	if im.set, err = recordset.Load(im.snapshot); err != nil {
		return err
	}
	im.Info = im.set.Instance
	if im.UUID, err = registry.UUIDFrom(im.Info.GetUuid()); err != nil {
		return err
	}
	if im.BootID, err = registry.UUIDFrom(im.Info.GetBootId()); err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	im.plan, err = restore.Prepare(im.snapshot, im.set)
	return err
}

// Close removes what was stored.
func (im *Image) Close() error { return im.close() }

// Config returns the configuration in the snapshot for an instance of the given name, with default rights only.
func (im *Image) Config(id string) (*config.Config, error) {
	own, err := config.Parse("the snapshot's configuration", strings.NewReader(im.Info.GetConfig()))
	if err != nil {
		return nil, err
	}
	safe, dropped := own.DefaultRights()
	safe.Name = id
	if err := safe.Validate(); err != nil {
		return nil, fmt.Errorf("%w; the snapshot's own cannot be used without %s: give one with --config", err, strings.Join(dropped, ", "))
	}
	return safe, nil
}

// Adjust makes a cell one that the image fits into.
func (im *Image) Adjust(spec *cell.Spec) error {
	spec.Slots, spec.SlotSize = cell.DefaultSlots+im.plan.Slots, cell.DefaultSlotSize
	spec.Hostname = im.Info.GetHostname()
	spec.Monotonic, spec.Boottime = time.Duration(im.Info.GetClocks().GetMonotonic()), time.Duration(im.Info.GetClocks().GetBoottime())
	var err error
	spec.ArenaBase, err = im.plan.ArenaBase(uint64(spec.Slots*spec.SlotSize) + 4096)
	return err
}

// Into restores the image into a cell that was adjusted to it, with what cfg allows. force passes over what is safe to pass over, and
// warn is told.
func (im *Image) Into(ctx context.Context, c *cell.Cell, group restore.Group, cfg *config.Config, force bool, warn func(string)) error {
	r, err := blueprint.Rights(cfg)
	if err != nil {
		return err
	}
	first, _ := c.FreeSlots()
	return im.plan.Into(ctx, restore.Target{
		Arena: c.Arena, Page: c.Init.Page, PID: c.Init.PID, PidFD: c.Init.PidFD, FirstSlot: first,
		Socket: c.Socket, SocketFD: c.SocketFD, Group: group, Console: c.Console,
		Filter: r.Filter, Bound: r.Capabilities, Force: force, Warn: warn,
	})
}
