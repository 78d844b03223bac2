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

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/cell"
	"vps/config"
	"vps/dump"
	"vps/instance/blueprint"
	"vps/instance/registry"
	"vps/object"
	"vps/object/network"
	"vps/object/recordset"
	"vps/pager/lazy"
	"vps/restore"
	"vps/snapshot"
)

// Image is a snapshot that has been read and checked, for a restore on this host.
type Image struct {
	Header *dump.Header
	Info   *dump.Instance
	UUID   registry.UUID // of the instance; zero: not known
	BootID registry.UUID // likewise

	snapshot   *dump.SnapshotFile
	handedOver bool // the snapshot, to somebody who closes it
	set        *object.Set
	plan       *restore.Plan
}

// Later is given the memories of a lazy restore, and fills them from the snapshot while the instance runs. Unless it returns an error,
// the snapshot is its own.
type Later func(ctx context.Context, s *dump.SnapshotFile, memories []lazy.Memory) error

// Open reads a snapshot from r: a file where it lies, anything else after storing it in the directory spool. The caller closes the
// image.
func Open(r io.Reader, spool string) (*Image, error) {
	im := &Image{}
	var err error
	if im.snapshot, err = open(r, spool); err != nil {
		return nil, err
	}
	if err := im.load(); err != nil {
		return nil, errors.Join(err, im.Close())
	}
	return im, nil
}

func open(r io.Reader, spool string) (*dump.SnapshotFile, error) {
	f, ok := r.(*os.File)
	if !ok {
		return dump.Spool(r, spool)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return dump.Spool(r, spool)
	}
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

func (im *Image) load() error {
	im.Header = im.snapshot.Header()
	here, err := snapshot.Header("")
	if err != nil {
		return err
	}
	if err := im.Header.CheckHost(here); err != nil {
		return err
	}
	if im.set, err = recordset.Load(im.snapshot.Snapshot); err != nil {
		return err
	}
	im.Info = im.set.Instance
	if im.UUID, err = registry.UUIDFrom(im.Info.GetUuid()); err != nil {
		return err
	}
	if im.BootID, err = registry.UUIDFrom(im.Info.GetBootId()); err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	im.plan, err = restore.Prepare(im.snapshot.Snapshot, im.set)
	return err
}

// Close closes the snapshot, if it was not handed over, and removes what was stored.
func (im *Image) Close() error {
	if im.handedOver {
		return nil
	}
	return im.snapshot.Close()
}

// Edit changes the records of networks and their sockets. It comes before [Image.Given] and [Image.Into].
func (im *Image) Edit(change func(proto.Message) error) error {
	for _, n := range im.set.Networks {
		if err := change(n); err != nil {
			return err
		}
	}
	for _, s := range im.set.Sockets {
		if err := change(s); err != nil {
			return err
		}
	}
	return nil
}

// Given returns the interfaces that the host had given the instance.
func (im *Image) Given() []*dump.Interface { return network.External(im.set) }

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

// Into restores the image into a cell that was adjusted to it, with what cfg allows. later, if it is not nil, is left most of the
// memory. force passes over what is safe to pass over, and warn is told.
func (im *Image) Into(ctx context.Context, c *cell.Cell, group restore.Group, cfg *config.Config, later Later, force bool, warn func(string)) error {
	r, err := blueprint.Rights(cfg)
	if err != nil {
		return err
	}
	var rest func(context.Context, []lazy.Memory) error
	if later != nil {
		rest = func(ctx context.Context, memories []lazy.Memory) error {
			err := later(ctx, im.snapshot, memories)
			im.handedOver = err == nil
			return err
		}
	}
	first, _ := c.FreeSlots()
	return im.plan.Into(ctx, restore.Target{
		Arena: c.Arena, Page: c.Init.Page, PID: c.Init.PID, PidFD: c.Init.PidFD, FirstSlot: first,
		Socket: c.Socket, SocketFD: c.SocketFD, Group: group, Bear: c.Bear, Console: c.Console,
		Filter: r.Filter, Bound: r.Capabilities, Force: force, Warn: warn, Lazy: rest,
	})
}
