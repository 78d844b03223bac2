package cell

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vps/remote"
)

// furnishing is what init's stub builds with: trees of mounts that are nowhere yet, as descriptors.
type furnishing struct {
	files   []*os.File
	number  map[*os.File]int // in the stub
	idmap   *os.File         // the user namespace; nil if it is the host's
	root    *os.File
	devices []device
	volumes []volume
}

func (f *furnishing) add(file *os.File) *os.File {
	f.files = append(f.files, file)
	return file
}

func (f *furnishing) close() {
	for _, file := range f.files {
		file.Close()
	}
	if f.idmap != nil {
		f.idmap.Close()
	}
}

// collect opens everything on the host that the instance is to see.
func (c *Cell) collect(f *furnishing, spec Spec) error {
	var err error
	if f.idmap, err = c.userNS(spec); err != nil {
		return err
	}
	root, err := openTree(spec.Root, f.idmap, false)
	if err != nil {
		return fmt.Errorf("root %s: %w", spec.Root, err)
	}
	f.root = f.add(root)
	if f.devices, err = openDevices(f, spec.Devices); err != nil {
		return err
	}
	if err := c.openVolumes(f, spec.Mounts); err != nil {
		return err
	}
	return c.openFiles(f, spec)
}

// furnish builds the file system of the instance around init's stub: the root, /proc, /sys, /dev, volumes, and what lies over
// files of theirs; then network loopback, host name and console.
func (c *Cell) furnish(ctx context.Context, f *furnishing, spec Spec) error {
	if err := c.takeStaged(ctx, f); err != nil {
		return err
	}
	if err := c.giveAll(ctx, f); err != nil {
		return err
	}
	err := c.Init.run(ctx, func(b *remote.Batch) {
		b.Call("mount root", unix.SYS_MOVE_MOUNT, f.number[f.root], b.String(""), unix.AT_FDCWD, b.String(rootDir), unix.MOVE_MOUNT_F_EMPTY_PATH)
		b.Call("chdir root", unix.SYS_CHDIR, b.String(rootDir))
		// The old root now lies over the new one, and stays until /proc and /sys are mounted: the kernel gives a
		// fresh one to who can see one whole (fs/namespace.c, mount_too_revealing).
		b.Call("pivot_root", unix.SYS_PIVOT_ROOT, b.String("."), b.String("."))
		systemMounts(b)
		populateDev(b, f)
	})
	if err != nil {
		return err
	}
	if err := c.Init.run(ctx, func(b *remote.Batch) { mountVolumes(b, f) }); err != nil {
		return err
	}
	if err := c.uts(ctx, spec); err != nil {
		return err
	}
	if err := c.hide(ctx, spec); err != nil {
		return err
	}
	return c.finish(ctx)
}

// giveAll hands everything to init's stub.
func (c *Cell) giveAll(ctx context.Context, f *furnishing) error {
	fds := make([]int, len(f.files))
	for i, file := range f.files {
		fds[i] = int(file.Fd())
	}
	got, err := c.give(ctx, c.Init, fds)
	if err != nil {
		return err
	}
	for i, file := range f.files {
		f.number[file] = got[i]
	}
	return nil
}

// userNS opens the cell's user namespace, nil if it is the host's.
func (c *Cell) userNS(spec Spec) (*os.File, error) {
	if spec.UserNS == nil {
		return nil, nil
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", c.Keeper.PID))
}

// openTree makes a private copy of a tree of mounts, with its owners seen through idmap if that is not nil.
func openTree(path string, idmap *os.File, readOnly bool) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, err
	}
	tree := os.NewFile(uintptr(fd), path)
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if idmap != nil {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(idmap.Fd())
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		tree.Close()
		if idmap != nil && errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("a file system there cannot be id-mapped (USERNS=host does without): %w", err)
		}
		return nil, fmt.Errorf("mount_setattr: %w", err)
	}
	return tree, nil
}

const (
	nosuid = unix.MS_NOSUID
	nodev  = unix.MS_NODEV
	noexec = unix.MS_NOEXEC
)

// systemMounts adds the mounts that every instance has. Paths are resolved beneath the instance's root.
func systemMounts(b *remote.Batch) {
	for _, m := range []struct {
		kind, dir string
		mode      int
		flags     uint64
		options   string
	}{
		{"proc", "/proc", 0o555, nosuid | nodev | noexec, ""},
		{"sysfs", "/sys", 0o555, nosuid | nodev | noexec | unix.MS_RDONLY, ""},
		{"cgroup2", "/sys/fs/cgroup", 0, nosuid | nodev | noexec, ""},
		{"tmpfs", "/dev", 0o755, nosuid | noexec | unix.MS_STRICTATIME, "mode=755,size=64k,nr_inodes=1k"},
		{"devpts", "/dev/pts", 0o755, nosuid | noexec, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"mqueue", "/dev/mqueue", 0o755, nosuid | nodev | noexec, ""},
		{"tmpfs", "/dev/shm", 0o755, nosuid | nodev, "mode=1777"},
	} {
		if m.mode != 0 {
			b.Try("mkdir "+m.dir, unix.SYS_MKDIR, b.String(m.dir), m.mode)
		}
		kind := b.String(m.kind)
		b.Call("mount "+m.kind+" on "+m.dir, unix.SYS_MOUNT, kind, b.String(m.dir), kind, m.flags, b.String(m.options))
	}
}

// hide covers what is not to be seen, and protects what is not to be written to. What does not exist needs neither.
func (c *Cell) hide(ctx context.Context, spec Spec) error {
	type try struct {
		path    string
		results []remote.Result
	}
	var tries []try
	var b *remote.Batch
	err := c.Init.run(ctx, func(batch *remote.Batch) {
		b = batch
		null, tmpfs := b.String("/dev/null"), b.String("tmpfs")
		for _, p := range spec.Masks {
			at := b.String(p)
			tries = append(tries, try{p, []remote.Result{
				b.Try("mask "+p, unix.SYS_MOUNT, null, at, 0, unix.MS_BIND, 0),
				b.Try("mask "+p, unix.SYS_MOUNT, tmpfs, at, tmpfs, uint64(nosuid|nodev|noexec|unix.MS_RDONLY), b.String("size=0k,nr_inodes=2")),
			}})
		}
		for _, p := range spec.ReadOnly {
			at := b.String(p)
			b.Try("bind "+p, unix.SYS_MOUNT, at, at, 0, unix.MS_BIND|unix.MS_REC, 0)
			tries = append(tries, try{p, []remote.Result{b.Try("protect "+p, unix.SYS_MOUNT, 0, at, 0,
				uint64(unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|nosuid|nodev|noexec), 0)}})
		}
	})
	if err != nil {
		return err
	}
	for _, t := range tries {
		var last error
		for _, r := range t.results {
			_, err := b.Value(r)
			if err == nil || errors.Is(err, unix.ENOENT) {
				last = nil
				break
			}
			last = err
		}
		if last != nil {
			return last
		}
	}
	return nil
}

// finish lets go of the host's file system, and of every descriptor that only building needed.
func (c *Cell) finish(ctx context.Context) error {
	return c.Init.run(ctx, func(b *remote.Batch) {
		b.Call("unmount the host's root", unix.SYS_UMOUNT2, b.String("."), unix.MNT_DETACH)
		b.Call("make / shared", unix.SYS_MOUNT, 0, b.String("/"), 0, unix.MS_REC|unix.MS_SHARED, 0)
		b.Call("chdir /", unix.SYS_CHDIR, b.String("/"))
		b.Call("close", unix.SYS_CLOSE_RANGE, fdSocket+1, ^uint32(0), 0)
	})
}
