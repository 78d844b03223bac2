package cell

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vps/remote"
)

// birth makes init, puts it into its control group and gives it its other namespaces.
func (c *Cell) birth(ctx context.Context, spec Spec) error {
	init, err := c.clone(ctx, slotInit)
	if err != nil {
		return err
	}
	c.Init = init
	if err := c.group.Add(init.PID); err != nil {
		return err
	}
	if c.init, err = c.statuses.watch(init.PID); err != nil {
		return err
	}
	// From now on the keeper has a child.
	b := c.Arena.Page(slotReaper).Batch()
	b.Mode = remote.Loop
	info := b.Space(statusSize)
	b.Call("waitid", unix.SYS_WAITID, unix.P_ALL, 0, info, unix.WEXITED|unix.WALL, 0)
	b.Try("write status", unix.SYS_WRITE, fdStatus, info, statusSize)
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
func (c *Cell) clone(ctx context.Context, slot int) (Stub, error) {
	s := Stub{PidFD: -1, Page: c.Arena.Page(slot)}
	s.Page.Batch() // it waits for its first batch
	var pid remote.Result
	b := c.Keeper.Page.Batch()
	pid = b.Clone("clone3", remote.CloneArgs{Slot: s.Page, ExitSignal: unix.SIGCHLD})
	if err := b.Run(ctx, c.Keeper.PidFD); err != nil {
		return s, err
	}
	n, err := b.Value(pid)
	if err != nil {
		return s, err
	}
	s.PID = int(n)
	if s.PidFD, err = unix.PidfdOpen(s.PID, 0); err != nil {
		return s, fmt.Errorf("pidfd_open %d: %w", s.PID, err)
	}
	return s, nil
}
