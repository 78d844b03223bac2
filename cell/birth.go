package cell

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/cell/reaper"
	"vps/remote"
)

// birth makes init, puts it into its control group and gives it its other namespaces.
func (c *Cell) birth(ctx context.Context) error {
	var err error
	if c.Init, c.init, err = c.clone(ctx, slotInit); err != nil {
		return err
	}
	c.init.Inside = 1
	if err := c.group.Add(c.Init.PID); err != nil {
		return err
	}
	// From now on the keeper has a child.
	b := c.Arena.Page(slotReaper).Batch()
	b.Mode = remote.Loop
	info := b.Space(reaper.Size)
	b.Call("waitid", unix.SYS_WAITID, unix.P_ALL, 0, info, unix.WEXITED|unix.WALL, 0)
	b.Try("write status", unix.SYS_WRITE, fdStatus, info, reaper.Size)
	if err := b.Start(); err != nil {
		return err
	}
	return c.Init.run(ctx, func(b *remote.Batch) {
		b.Call("new namespaces", unix.SYS_UNSHARE,
			unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWCGROUP)
		b.Call("make / a slave", unix.SYS_MOUNT, 0, b.String("/"), 0, unix.MS_REC|unix.MS_SLAVE, 0)
	})
}

// clone lets the keeper give birth to a stub in the given slot.
func (c *Cell) clone(ctx context.Context, slot int) (Stub, *Process, error) {
	s := Stub{PidFD: -1, Page: c.Arena.Page(slot)}
	s.Page.Batch() // it waits for its first batch
	p, err := c.statuses.Expect(func() (int, error) {
		b := c.Keeper.Page.Batch()
		pid := b.Clone("clone3", remote.CloneArgs{Slot: s.Page, ExitSignal: unix.SIGCHLD})
		if err := b.Run(ctx, c.Keeper.PidFD); err != nil {
			return 0, err
		}
		n, err := b.Value(pid)
		return int(n), err
	})
	if err != nil {
		return s, nil, err
	}
	s.PID = p.PID
	if s.PidFD, err = unix.PidfdOpen(s.PID, 0); err != nil {
		return s, p, fmt.Errorf("pidfd_open %d: %w", s.PID, err)
	}
	return s, p, nil
}
