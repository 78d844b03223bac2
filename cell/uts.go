package cell

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vps/remote"
)

// uts gives the instance its host name, its loopback interface, its kernel parameters and its console.
func (c *Cell) uts(ctx context.Context, spec Spec) error {
	// In a stub whose descriptors have no holes every open answers with the lowest free number.
	var b *remote.Batch
	var next remote.Result
	err := c.Init.run(ctx, func(batch *remote.Batch) {
		b = batch
		b.Call("close", unix.SYS_CLOSE_RANGE, fdSocket+1, ^uint32(0), 0)
		if spec.Hostname != "" {
			b.Call("set host name "+spec.Hostname, unix.SYS_SETHOSTNAME, b.String(spec.Hostname), len(spec.Hostname))
		}
		next = b.Call("socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	fd, err := b.Value(next)
	if err != nil {
		return err
	}
	err = c.Init.run(ctx, func(b *remote.Batch) {
		ifreq := make([]byte, 40) // struct ifreq, linux/if.h
		copy(ifreq, "lo")
		binary.LittleEndian.PutUint16(ifreq[16:], unix.IFF_UP|unix.IFF_RUNNING)
		b.Call("bring lo up", unix.SYS_IOCTL, fd, unix.SIOCSIFFLAGS, b.Data(ifreq))
		b.Call("close", unix.SYS_CLOSE, fd)
		for _, s := range spec.Sysctl {
			b.Call("open "+s.Path, unix.SYS_OPEN, b.String(s.Path), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			b.Call("write "+s.Value+" to "+s.Path, unix.SYS_WRITE, fd, b.String(s.Value), len(s.Value))
			b.Call("close", unix.SYS_CLOSE, fd)
		}
	})
	if err != nil || !spec.Console {
		return err
	}
	return c.openConsole(ctx, int(fd))
}

// openConsole makes a pseudo terminal of the instance's own and puts it on /dev/console. fd is the lowest free number in init's stub.
func (c *Cell) openConsole(ctx context.Context, fd int) error {
	err := c.Init.run(ctx, func(b *remote.Batch) {
		b.Call("open /dev/ptmx", unix.SYS_OPEN, b.String("/dev/pts/ptmx"), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		b.Call("unlock console", unix.SYS_IOCTL, fd, unix.TIOCSPTLCK, b.Words(0))
		b.Call("open console", unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		b.Call("make /dev/console", unix.SYS_MKNOD, b.String("/dev/console"), unix.S_IFREG|0o620, 0)
		b.Call("mount /dev/console", unix.SYS_MOUNT, b.String("/dev/pts/0"), b.String("/dev/console"), 0, unix.MS_BIND, 0)
	})
	if err != nil {
		return err
	}
	if c.Console, err = c.Init.Take(fd); err != nil {
		return err
	}
	slave, err := c.Init.Take(fd + 1)
	if err != nil {
		return err
	}
	defer slave.Close()
	return c.copyConsole(ctx, c.Console, slave)
}

// copyConsole lets the keeper copy what the console prints to the history. The keeper holds the slave too: else each moment in which
// nobody has the console open would end the reading with EIO.
func (c *Cell) copyConsole(ctx context.Context, master, slave *os.File) error {
	got, err := c.give(ctx, c.Keeper, []int{int(master.Fd()), int(slave.Fd())})
	if err != nil {
		return err
	}
	if !slices.Equal(got, []int{fdMaster, fdSlave}) {
		return fmt.Errorf("the keeper received the console as descriptors %v", got)
	}
	b := c.Arena.Page(slotCopier).Batch()
	b.Mode = remote.Loop
	buf := b.Space(4096)
	n := b.Call("read console", unix.SYS_READ, fdMaster, buf, 4096)
	b.Try("write history", unix.SYS_WRITE, fdHistory, buf, n)
	return b.Start()
}
