package cell

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/devfs"
	"vps/remote"
)

// device is a node of the instance's /dev with the mount that shows it.
type device struct {
	devfs.Node
	tree *os.File // nil for a link
}

// openDevices takes the host's nodes, and makes those that are to have a mode of their own.
func openDevices(f *furnishing, nodes []devfs.Node) ([]device, error) {
	var all []device
	for _, n := range nodes {
		d := device{Node: n}
		switch n.Type {
		case devfs.Pts, devfs.Console:
			continue // ours
		case devfs.Symlink:
		default:
			tree, err := openDevice(n, f.idmap)
			if err != nil {
				return nil, fmt.Errorf("device %s: %w", n.Name, err)
			}
			d.tree = f.add(tree)
		}
		all = append(all, d)
	}
	return all, nil
}

func openDevice(n devfs.Node, idmap *os.File) (*os.File, error) {
	from := filepath.Join("/dev", n.BindFrom)
	if n.BindFrom == "" {
		fs, err := detachedTmpfs()
		if err != nil {
			return nil, err
		}
		defer fs.Close()
		if err := makeNode(int(fs.Fd()), n); err != nil {
			return nil, err
		}
		from = filepath.Join("/proc/self/fd", strconv.Itoa(int(fs.Fd())), "node")
	}
	tree, err := openTree(from, idmap, false)
	if idmap != nil && errors.Is(err, unix.EINVAL) {
		return openTree(from, nil, false) // before Linux 6.3 a tmpfs cannot be id-mapped; the node is nobody's then
	}
	return tree, err
}

// detachedTmpfs makes a file system in which nodes work, wherever the run directory is.
func detachedTmpfs() (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsmount tmpfs: %w", err)
	}
	return os.NewFile(uintptr(fd), "tmpfs"), nil
}

func makeNode(dir int, n devfs.Node) error {
	kind := uint32(unix.S_IFCHR)
	if n.Type == devfs.Block {
		kind = unix.S_IFBLK
	}
	if err := unix.Mknodat(dir, "node", kind, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	if err := unix.Fchmodat(dir, "node", uint32(n.Mode.Perm()), 0); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return nil
}

// populateDev adds the nodes and links of /dev.
func populateDev(b *remote.Batch, f *furnishing) {
	for _, d := range f.devices {
		at := path.Join("/dev", path.Clean("/"+d.Name))
		makeParents(b, at)
		if d.tree == nil {
			b.Call("link "+at, unix.SYS_SYMLINK, b.String(d.Link), b.String(at))
			continue
		}
		b.Call("make "+at, unix.SYS_MKNOD, b.String(at), unix.S_IFREG|0o666, 0)
		b.Call("mount "+at, unix.SYS_MOVE_MOUNT, f.number[d.tree], b.String(""), unix.AT_FDCWD, b.String(at), unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
}
