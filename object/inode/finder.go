// Package inode finds the names of files that are known by their inodes only: what is watched, and what is open by a name that is
// deleted while others are not.
package inode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"vps/object"
)

// ErrNotFound says that no name of an inode was found.
var ErrNotFound = errors.New("no name of it is found")

// Number identifies an inode of the host: its file system, as mountinfo and fdinfo have it (the kernel's s_dev, which is stat(2)'s
// st_dev but for file systems with subvolumes), and its number there.
type Number struct{ Dev, Ino uint64 }

// Finder finds names as the instance has them.
type Finder struct {
	init   int
	mounts []*mountinfo.Info
}

// NewFinder makes a finder for the instance of an init, by its pid here.
func NewFinder(init int) *Finder { return &Finder{init: init} }

// read reads the list of mounts, once.
func (f *Finder) read() error {
	if f.mounts != nil {
		return nil
	}
	text, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", f.init))
	if err != nil {
		return err
	}
	defer text.Close()
	if f.mounts, err = mountinfo.GetMountsFromReader(text, nil); err != nil {
		return fmt.Errorf("read %s: %w", text.Name(), err)
	}
	return nil
}

// points returns where a file system is mounted in the instance, and not covered.
func (f *Finder) points(dev uint64) ([]string, error) {
	if err := f.read(); err != nil {
		return nil, err
	}
	var list []string
	for _, m := range f.mounts {
		if unix.Mkdev(uint32(m.Major), uint32(m.Minor)) == dev && f.isTop(m) {
			list = append(list, m.Mountpoint)
		}
	}
	return list, nil
}

// Beneath tells by which name, and beneath which mount point, a mount of the instance has what a descriptor of ours is open on, when
// other mounts cover it. name is what the kernel calls it, which it is unless it is open in a copy of a mount.
func (f *Finder) Beneath(fd int, name string, dev uint64) (string, string, error) {
	if err := f.read(); err != nil {
		return "", "", err
	}
	id, err := mountID(fd)
	if err != nil {
		return "", "", err
	}
	for _, m := range f.mounts {
		if uint64(m.ID) == id && f.isTop(m) {
			return name, m.Mountpoint, nil
		}
	}
	handle, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return "", "", ErrNotFound // the file system has none
	}
	found, err := f.ByHandle(dev, handle)
	if err != nil {
		return "", "", err
	}
	defer found.Close()
	if id, err = mountID(int(found.Fd())); err != nil {
		return "", "", err
	}
	for _, m := range f.mounts {
		if uint64(m.ID) == id && below(found.Name(), m.Mountpoint) {
			return found.Name(), m.Mountpoint, nil
		}
	}
	return "", "", ErrNotFound
}

// isTop tells whether a mount's mount point leads to it, and not to another one that covers the whole of it.
func (f *Finder) isTop(m *mountinfo.Info) bool {
	dir, err := f.open(m.Mountpoint)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	id, err := mountID(dir)
	return err == nil && id == uint64(m.ID)
}

func below(name, dir string) bool { return strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") }

func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("find a mount: %w", err)
	}
	return st.Mnt_id, nil
}

// open opens, with O_PATH, a directory of the instance by its path, which is the kernel's and leads through no links. So nobody is told of
// it (inotify(7)).
func (f *Finder) open(dir string) (int, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", f.init), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return unix.Openat2(root, dir, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
}

// ByHandle opens, with O_PATH, the file that the kernel knows by a handle (open_by_handle_at(2)), and tells its name. The name is
// to be held against the file: that of one that nobody has looked up for long is not known. The caller closes the file.
func (f *Finder) ByHandle(dev uint64, handle unix.FileHandle) (*os.File, error) {
	points, err := f.points(dev)
	if err != nil {
		return nil, err
	}
	for _, point := range points {
		dir, err := f.open(point)
		if err != nil {
			continue
		}
		fd := -1
		err = object.InDirectory(dir, func() (err error) { // which may be open with O_PATH, what else names the file system may not
			fd, err = unix.OpenByHandleAt(unix.AT_FDCWD, handle, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
			return err
		})
		unix.Close(dir)
		if err != nil {
			continue
		}
		name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	return nil, ErrNotFound
}

// Beside finds another name of an inode in the directory of one that is deleted.
func (f *Finder) Beside(name string, n Number) (string, error) {
	root, err := f.open(path.Dir(name))
	if err != nil {
		return "", ErrNotFound
	}
	defer unix.Close(root)
	w := walk{ino: n.Ino, dev: n.Dev, left: maxEntries, buf: make([]byte, 32<<10), flat: true}
	if found, ok := w.begin(root, path.Dir(name)); ok {
		return found, nil
	}
	return "", ErrNotFound
}

// ByNumber walks through a file system of the instance until it finds a name of an inode, which it describes.
func (f *Finder) ByNumber(n Number) (name string, st unix.Stat_t, err error) {
	points, err := f.points(n.Dev)
	if err != nil {
		return "", st, err
	}
	for _, point := range points {
		w := walk{ino: n.Ino, left: maxEntries, buf: make([]byte, 32<<10)}
		if name, ok := w.mount(f, point); ok {
			return name, w.st, nil
		}
	}
	return "", st, ErrNotFound
}

// maxEntries is how many names are looked at before a search is given up.
const maxEntries = 1 << 20

// walk is a search for an inode in one mount.
type walk struct {
	ino, dev uint64
	left     int
	flat     bool // only this directory
	buf      []byte
	st       unix.Stat_t // of what was looked at last
}

func (w *walk) mount(f *Finder, point string) (string, bool) {
	root, err := f.open(point)
	if err != nil {
		return "", false
	}
	defer unix.Close(root)
	if err := unix.Fstat(root, &w.st); err != nil || w.st.Ino == w.ino {
		return point, err == nil
	}
	w.dev = w.st.Dev
	return w.begin(root, point)
}

func (w *walk) begin(root int, name string) (string, bool) {
	dir, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	return w.search(dir, name)
}

// search looks through a directory, which it closes, and those below it. A directory that cannot be read has no names.
func (w *walk) search(dir int, name string) (string, bool) {
	defer unix.Close(dir)
	var below []string
	for {
		n, err := unix.Getdents(dir, w.buf)
		if err != nil || n <= 0 {
			break
		}
		for rest := w.buf[:n]; len(rest) > 0; {
			e, size := entryOf(rest)
			rest = rest[size:]
			if w.left--; w.left < 0 {
				return "", false
			}
			switch {
			case e.name == "." || e.name == "..":
			case e.ino == w.ino && w.is(dir, e.name):
				return path.Join(name, e.name), true
			case !w.flat && (e.kind == unix.DT_DIR || e.kind == unix.DT_UNKNOWN):
				below = append(below, e.name)
			}
		}
	}
	for _, entry := range below {
		const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err := unix.Openat2(dir, entry, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_XDEV})
		if err != nil {
			continue
		}
		if found, ok := w.search(fd, path.Join(name, entry)); ok {
			return found, true
		}
	}
	return "", false
}

// is tells whether a name is the inode's, and not that of what is mounted there.
func (w *walk) is(dir int, name string) bool {
	return unix.Fstatat(dir, name, &w.st, unix.AT_SYMLINK_NOFOLLOW) == nil && w.st.Ino == w.ino && w.st.Dev == w.dev
}

// entry is struct linux_dirent64, see getdents(2).
type entry struct {
	ino  uint64
	kind uint8
	name string
}

func entryOf(buf []byte) (e entry, size int) {
	const nameAt = 19
	size = int(binary.NativeEndian.Uint16(buf[16:]))
	return entry{binary.NativeEndian.Uint64(buf), buf[18], unix.ByteSliceToString(buf[nameAt:size])}, size
}
