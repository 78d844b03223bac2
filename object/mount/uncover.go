package mount

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/linux"
	"vps/object"
)

// elsewhere is a directory over which a copy of the instance's mounts lies, in a namespace of our own that lasts for a moment.
const elsewhere = "/sys"

// uncover opens the roots of the instance's mounts in a copy of them, from which each of its own is unmounted when it has been
// opened: whatever it covers comes to light.
func (m *Namespace) uncover() error {
	if m.roots != nil {
		return nil
	}
	m.roots = make(map[*mount]*os.File)
	tree := -1
	err := object.InNamespace(m.init, "mnt", unix.CLONE_NEWNS, func() (err error) {
		tree, err = unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		return err
	})
	if err != nil {
		return fmt.Errorf("copy the mounts: %w", err)
	}
	defer unix.Close(tree)
	return linux.OnSpareThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make / private: %w", err)
		}
		private := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, private); err != nil {
			return fmt.Errorf("make the copy private: %w", err)
		}
		if err := unix.MoveMount(tree, "", unix.AT_FDCWD, elsewhere, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount the copy: %w", err)
		}
		for _, mnt := range m.mounts {
			if mnt.parent == nil {
				m.strip(tree, mnt, make(map[*mount]bool))
			}
		}
		for _, mnt := range m.mounts {
			if root, err := openTop(tree, mnt); err == nil && mnt.standard {
				m.roots[mnt] = root
			}
		}
		return nil
	})
}

// strip opens and unmounts what the instance has mounted in a mount: first what lies over the rest.
func (m *Namespace) strip(tree int, in *mount, passed map[*mount]bool) {
	if passed[in] {
		return
	}
	passed[in] = true
	var inner []*mount
	for _, mnt := range slices.Backward(m.mounts) {
		if mnt.parent == in {
			inner = append(inner, mnt)
		}
	}
	depth := func(mnt *mount) int { return strings.Count(mnt.Mountpoint, "/") }
	slices.SortStableFunc(inner, func(a, b *mount) int { return cmp.Compare(depth(a), depth(b)) })
	for _, mnt := range inner {
		m.strip(tree, mnt, passed)
		root, err := openTop(tree, mnt)
		if err != nil || mnt.standard {
			continue
		}
		m.roots[mnt] = root
		// It stays open; what fails to go covers others, which are not found then.
		_ = unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", root.Fd()), unix.MNT_DETACH)
	}
}

// openTop opens what is on top at the mount point of a mount, if that may be it.
func openTop(tree int, mnt *mount) (*os.File, error) {
	name := strings.TrimPrefix(mnt.Mountpoint, "/")
	fd, err := unix.Openat2(tree, cmp.Or(name, "."), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, err
	}
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st)
	if err == nil && (st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 || int(st.Dev_major) != mnt.Major || int(st.Dev_minor) != mnt.Minor) {
		err = errors.New("another mount")
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", mnt.Mountpoint, err)
	}
	return os.NewFile(uintptr(fd), mnt.Mountpoint), nil
}

// Close closes what has been opened.
func (m *Namespace) Close() error {
	var errs []error
	for _, root := range m.roots {
		errs = append(errs, root.Close())
	}
	m.roots = nil
	return errors.Join(errs...)
}
