package mount

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// stage is a directory that every instance has and that nobody needs while mounts are restored: each is made in a memory file system
// there, where nothing covers it.
const stage = "/proc/fs"

// superOptions are those of a tmpfs or a proc file system that mount(2) takes as data.
var superOptions = []string{"size=", "mode=", "uid=", "gid=", "nr_inodes=", "hidepid=", "subset="}

// attributes are mount_setattr(2)'s by their names in mountinfo; what is there for no name of the access time is MOUNT_ATTR_STRICTATIME.
var attributes = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
	"noatime": unix.MOUNT_ATTR_NOATIME, "relatime": unix.MOUNT_ATTR_RELATIME, "nodiratime": unix.MOUNT_ATTR_NODIRATIME,
	"nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
}

// Restored are the mounts that have been made again, which can be written to until they are sealed.
type Restored struct {
	pid    int
	mounts []*made // the instance's own, and those of the manager's whose propagation is not what that makes it
}

// restorer restores the mounts of a set in the maker.
type restorer struct {
	*Restored
	s       *remote.Script
	m       *object.Maker
	set     *object.Set
	content object.Content
	own     []*dump.Mount
	trees   map[uint64][]*dump.Inode
	staged  map[uint64]bool
	doomed  []doomed
	roots   map[uint64]int64 // of the instance's own mounts: descriptors of the maker
}

// Restore makes the instance's own mounts again and fills its memory file systems. pid is the maker's, here.
func Restore(s *remote.Script, m *object.Maker, pid int, set *object.Set, content object.Content) (*Restored, error) {
	r := &restorer{
		Restored: &Restored{pid: pid}, s: s, m: m, set: set, content: content,
		trees: make(map[uint64][]*dump.Inode), staged: make(map[uint64]bool), roots: make(map[uint64]int64),
	}
	for _, in := range object.Sorted(set.Inodes) {
		r.trees[in.GetMount()] = append(r.trees[in.GetMount()], in)
	}
	if err := r.restore(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r.Restored, nil
}

func (r *restorer) restore() error {
	peers := make(map[uint32]int)
	for _, mnt := range r.set.Mounts {
		peers[mnt.GetGroup()]++
	}
	for _, mnt := range object.Sorted(r.set.Mounts) {
		if !mnt.GetStandard() {
			r.own = append(r.own, mnt)
			continue
		}
		if err := r.tree(mnt, mnt.GetTarget()); err != nil {
			return err
		}
		if mnt.GetGroup() == 0 || peers[mnt.GetGroup()] > 1 || mnt.GetMaster() != 0 {
			fd, err := r.keep(mnt, mnt.GetTarget())
			if err != nil {
				return err
			}
			r.s.Call("close", unix.SYS_CLOSE, fd)
		} else if err := r.keepReadOnly(mnt); err != nil {
			return fmt.Errorf("mount %s: %w", mnt.GetTarget(), err)
		}
	}
	if len(r.own) > 0 {
		if err := r.build(); err != nil {
			return err
		}
	}
	if len(r.mounts) == 0 {
		return nil
	}
	return propagate(r.pid, r.mounts)
}

// build makes the instance's own mounts aside, and puts them together.
func (r *restorer) build() error {
	b := r.s.Room(1024)
	b.Call("mount "+stage, unix.SYS_MOUNT, b.String("tmpfs"), b.String(stage), b.String("tmpfs"), 0, 0)
	b.Call("make it private", unix.SYS_MOUNT, 0, b.String(stage), 0, unix.MS_PRIVATE, 0)
	opened := b.Call("open "+stage, unix.SYS_OPENAT, unix.AT_FDCWD, b.String(stage), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err := r.s.Run(); err != nil {
		return err
	}
	aside, err := b.Value(opened)
	if err != nil {
		return err
	}
	for _, mnt := range r.own {
		if err := r.make(mnt); err != nil {
			return err
		}
	}
	for _, mnt := range r.own {
		if r.roots[mnt.GetId()], err = r.keep(mnt, staged(mnt)); err != nil {
			return err
		}
	}
	// Within each what is mounted in it first, and of that the deepest first: nothing covers yet where others belong.
	order := slices.Clone(r.own)
	depth := func(mnt *dump.Mount) int { return strings.Count(mnt.GetTarget(), "/") }
	level := make(map[*dump.Mount]int)
	for _, mnt := range order {
		r.level(mnt, level)
	}
	slices.SortStableFunc(order, func(a, b *dump.Mount) int { return cmp.Or(level[b]-level[a], depth(b)-depth(a)) })
	for _, mnt := range order {
		r.attach(mnt)
	}
	for _, d := range r.doomed {
		r.remove(d)
	}
	for _, mnt := range r.own {
		r.s.Call("close", unix.SYS_CLOSE, r.roots[mnt.GetId()])
	}
	r.s.Call("chdir", unix.SYS_FCHDIR, aside)
	b = r.s.Room(512)
	b.Call("unmount "+stage, unix.SYS_UMOUNT2, b.String("."), unix.MNT_DETACH)
	b.Call("chdir /", unix.SYS_CHDIR, b.String("/"))
	b.Call("close", unix.SYS_CLOSE, aside)
	return r.s.Run()
}

// level tells in how many of the instance's own mounts a mount lies, with itself, and notes it.
func (r *restorer) level(mnt *dump.Mount, known map[*dump.Mount]int) int {
	if mnt.GetStandard() {
		return 0
	}
	if known[mnt] == 0 {
		known[mnt] = 1 + r.level(r.set.Mounts[mnt.GetParent()], known)
	}
	return known[mnt]
}

func staged(mnt *dump.Mount) string { return stage + "/" + strconv.FormatUint(mnt.GetId(), 10) }

// make makes a mount aside: with all its attributes, but that it can be written to.
func (r *restorer) make(mnt *dump.Mount) error {
	if r.staged[mnt.GetId()] {
		return nil
	}
	r.staged[mnt.GetId()] = true
	at := staged(mnt)
	b := r.s.Room(len(at) + 512)
	if mnt.GetFile() {
		b.Call("make "+at, unix.SYS_MKNODAT, unix.AT_FDCWD, b.String(at), unix.S_IFREG|0o600, 0)
	} else {
		b.Call("make directory "+at, unix.SYS_MKDIRAT, unix.AT_FDCWD, b.String(at), 0o700)
	}
	base := r.set.Mounts[mnt.GetBase()]
	if base == nil {
		r.mountNew(mnt, at)
	} else if err := r.bind(mnt, base, at); err != nil {
		return err
	}
	set := uint64(unix.MOUNT_ATTR_STRICTATIME)
	if slices.Contains(mnt.GetOptions(), "noatime") || slices.Contains(mnt.GetOptions(), "relatime") {
		set = 0
	}
	all := uint64(unix.MOUNT_ATTR__ATIME)
	for name, attr := range attributes {
		all |= attr
		if slices.Contains(mnt.GetOptions(), name) {
			set |= attr
		}
	}
	if set&unix.MOUNT_ATTR_RDONLY != 0 {
		set, all = set&^unix.MOUNT_ATTR_RDONLY, all&^unix.MOUNT_ATTR_RDONLY
	}
	b = r.s.Room(len(at) + 512)
	attr := object.Place(b, &unix.MountAttr{Attr_set: set, Attr_clr: all})
	b.Call("set attributes of "+mnt.GetTarget(), unix.SYS_MOUNT_SETATTR, unix.AT_FDCWD, b.String(at), 0, attr, unix.MOUNT_ATTR_SIZE_VER0)
	if base == nil {
		return r.tree(mnt, at)
	}
	return r.s.Run()
}

// mountNew mounts a file system of the instance's own.
func (r *restorer) mountNew(mnt *dump.Mount, at string) {
	var data []string
	for _, o := range mnt.GetSuperOptions() {
		if slices.ContainsFunc(superOptions, func(p string) bool { return strings.HasPrefix(o, p) }) {
			data = append(data, o)
		}
	}
	options := strings.Join(data, ",")
	b := r.s.Room(len(at) + len(mnt.GetSource()) + len(options) + 2048)
	b.Call("mount "+mnt.GetTarget(), unix.SYS_MOUNT, b.String(mnt.GetSource()), b.String(at), b.String(mnt.GetFstype()), 0, b.String(options))
}

// bind mounts a part of a file system that is mounted already.
func (r *restorer) bind(mnt, base *dump.Mount, at string) error {
	source := path.Join(base.GetTarget(), mnt.GetRoot())
	if !base.GetStandard() {
		if err := r.make(base); err != nil {
			return err
		}
		source = path.Join(staged(base), mnt.GetRoot())
	}
	if mnt.GetDeleted() {
		var err error
		if source, err = r.makeDeleted(mnt, source); err != nil {
			return err
		}
	}
	found, err := r.find(source)
	if err != nil {
		return err
	}
	b := r.s.Room(len(at) + 1024)
	cloned := b.Call("copy "+source, unix.SYS_OPEN_TREE, found, b.String(""), unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE)
	if err := r.s.Run(); err != nil {
		return err
	}
	copied, err := b.Value(cloned)
	if err != nil {
		return err
	}
	b = r.s.Room(len(at) + 1024)
	b.Call("mount "+mnt.GetTarget(), unix.SYS_MOVE_MOUNT, copied, b.String(""), unix.AT_FDCWD, b.String(at), unix.MOVE_MOUNT_F_EMPTY_PATH)
	b.Call("make it private", unix.SYS_MOUNT, 0, b.String(at), 0, unix.MS_PRIVATE, 0)
	b.Call("close", unix.SYS_CLOSE, found)
	b.Call("close", unix.SYS_CLOSE, copied)
	return nil
}

// find opens a path with O_PATH in the maker. It leads through no link, and so not to what is the maker's own in /proc.
func (r *restorer) find(name string) (int64, error) { return r.findIn(unix.AT_FDCWD, name) }

func (r *restorer) findIn(dir int64, name string) (int64, error) {
	b := r.s.Room(len(name) + 512)
	how := object.Place(b, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS})
	found := b.Call("find "+name, unix.SYS_OPENAT2, dir, b.String(name), how, unix.SizeofOpenHow)
	if err := r.s.Run(); err != nil {
		return -1, err
	}
	return b.Value(found)
}

// keep takes what a path leads to for the root of a mount, and returns the maker's descriptor of it.
func (r *restorer) keep(mnt *dump.Mount, at string) (int64, error) {
	fd, err := r.find(at)
	if err != nil {
		return -1, err
	}
	root, err := r.m.Take(int(fd))
	if err != nil {
		return -1, err
	}
	r.mounts = append(r.mounts, &made{mnt, root})
	return fd, nil
}

// keepReadOnly keeps a mount of the manager's that can be written to, while in the snapshot it could not.
func (r *restorer) keepReadOnly(mnt *dump.Mount) error {
	if !slices.Contains(mnt.GetOptions(), "ro") {
		return nil
	}
	top, err := unix.Open(fmt.Sprintf("/proc/%d/root", r.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	fd, err := unix.Openat2(top, mnt.GetTarget(), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // not on this host
	}
	if err != nil {
		return err
	}
	root := os.NewFile(uintptr(fd), mnt.GetTarget())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Flags&unix.ST_RDONLY != 0 {
		return errors.Join(err, root.Close())
	}
	r.mounts = append(r.mounts, &made{mnt, root})
	return nil
}

// attach moves a mount to its place.
func (r *restorer) attach(mnt *dump.Mount) {
	parent := r.set.Mounts[mnt.GetParent()]
	name := relative(parent.GetTarget(), mnt.GetTarget())
	to, err := r.roots[parent.GetId()], error(nil)
	switch {
	case parent.GetStandard():
		to, err = r.find(mnt.GetTarget())
	case name != "":
		to, err = r.findIn(to, name)
	}
	if err != nil {
		return // the script keeps it
	}
	b := r.s.Room(512)
	b.Call("mount "+mnt.GetTarget(), unix.SYS_MOVE_MOUNT, r.roots[mnt.GetId()], b.String(""), to, b.String(""),
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if to != r.roots[parent.GetId()] {
		b.Call("close", unix.SYS_CLOSE, to)
	}
}

// Seal makes read-only what was.
func (r *Restored) Seal() error {
	if len(r.mounts) == 0 {
		return nil
	}
	return object.InNamespace(r.pid, "mnt", unix.CLONE_NEWNS, func() error {
		for _, m := range r.mounts {
			if err := m.seal(); err != nil {
				return fmt.Errorf("make mount %s read-only: %w", m.GetTarget(), err)
			}
		}
		return nil
	})
}

func (m *made) seal() error {
	if slices.Contains(m.GetOptions(), "ro") {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(int(m.root.Fd()), "", unix.AT_EMPTY_PATH, attr); err != nil {
			return err
		}
	}
	if m.GetBase() != 0 || m.GetStandard() || !slices.Contains(m.GetSuperOptions(), "ro") {
		return nil
	}
	fs, err := unix.Fspick(int(m.root.Fd()), "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return err
	}
	return unix.FsconfigReconfigure(fs)
}

// Close closes what r holds in our process.
func (r *Restored) Close() error {
	var errs []error
	for _, m := range r.mounts {
		errs = append(errs, m.root.Close())
	}
	r.mounts = nil
	return errors.Join(errs...)
}
