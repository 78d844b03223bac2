package cell

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vps/account"
	"vps/cell/reaper"
	"vps/remote"
)

// birth makes init, puts it into its control group and gives it its other namespaces.
func (c *Cell) birth(ctx context.Context) error {
	way, err := c.group.Entry()
	if err != nil {
		return err
	}
	defer way.Close()
	if c.Init, c.init, err = c.clone(ctx, c.Arena.Page(slotInit), 0, way); err != nil {
		return err
	}
	c.init.Inside = 1
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

// clone lets the keeper give birth to a stub in the given slot and control group, with a pid inside; 0: with any. Above the keeper's
// descriptors it has none.
func (c *Cell) clone(ctx context.Context, page *remote.Page, pid int, way *account.Entry) (Stub, *Process, error) {
	s := Stub{PidFD: -1, Page: page}
	s.Page.Batch() // it waits for its first batch
	group, err := c.give(ctx, c.Keeper, []int{int(way.Unified.Fd())})
	if err != nil {
		return s, nil, err
	}
	p, err := c.statuses.Expect(func() (int, error) {
		args := remote.CloneArgs{Slot: s.Page, Flags: unix.CLONE_INTO_CGROUP, Cgroup: group[0], ExitSignal: unix.SIGCHLD}
		if pid != 0 {
			args.SetTID = []int{pid}
		}
		b := c.Keeper.Page.Batch()
		child := b.Clone("clone3", args)
		if err := b.Run(ctx, c.Keeper.PidFD); err != nil {
			return 0, err
		}
		n, err := b.Value(child)
		return int(n), err
	})
	err = errors.Join(err, c.Keeper.run(ctx, func(b *remote.Batch) { b.Call("close", unix.SYS_CLOSE, group[0]) }))
	if err != nil {
		return s, p, err
	}
	s.PID = p.PID
	if s.PidFD, err = unix.PidfdOpen(s.PID, 0); err != nil {
		return s, p, fmt.Errorf("pidfd_open %d: %w", s.PID, err)
	}
	return s, p, c.join(ctx, s, way.Tasks, group[0])
}

// join lets a newborn stub go into its v1 control groups, and forget group, the descriptor of the v2 one.
func (c *Cell) join(ctx context.Context, s Stub, tasks []*os.File, group int) error {
	fds := make([]int, len(tasks))
	for i, f := range tasks {
		fds[i] = int(f.Fd())
	}
	got, err := c.give(ctx, s, fds)
	if err != nil {
		return err
	}
	return s.run(ctx, func(b *remote.Batch) {
		for i, fd := range got {
			b.Call("join "+tasks[i].Name(), unix.SYS_WRITE, fd, b.String("0"), 1)
			b.Call("close", unix.SYS_CLOSE, fd)
		}
		b.Call("close", unix.SYS_CLOSE, group)
	})
}

// Bear lets the keeper give birth to a stub that comes back as what an exec session has left: beside init, with a pid inside, in
// init's namespaces and in the control group of such processes. It has no descriptors but init's first ones. Its pidfd is the caller's
// to close. The keeper reaps it.
func (c *Cell) Bear(ctx context.Context, pid int, page *remote.Page) (pidfd int, err error) {
	leave, err := c.enter()
	if err != nil {
		return -1, err
	}
	defer leave()
	c.births.Lock()
	defer c.births.Unlock()
	way, err := c.group.LeafEntry(leaf)
	if err != nil {
		return -1, err
	}
	defer way.Close()
	s, p, err := c.clone(ctx, page, pid, way)
	if err == nil {
		p.Inside = pid
		err = c.settleIn(ctx, s)
	}
	if err != nil && s.PidFD >= 0 {
		unix.Close(s.PidFD)
		s.PidFD = -1
	}
	return s.PidFD, err
}

// settleIn brings a newborn stub to init's namespaces, and closes what it has beyond init's descriptors.
func (c *Cell) settleIn(ctx context.Context, s Stub) error {
	got, err := c.give(ctx, s, []int{c.Init.PidFD})
	if err != nil {
		return err
	}
	return s.run(ctx, func(b *remote.Batch) {
		b.Call("enter namespaces", unix.SYS_SETNS, got[0], namespaces)
		b.Call("close what is the keeper's", unix.SYS_CLOSE_RANGE, fdSocket+1, ^uint32(0), 0)
	})
}
