package cell

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/remote"
)

// volume is a [Mount] with its tree.
type volume struct {
	Mount
	isDir  bool
	tree   *os.File // nil for a tmpfs, and once it is staged
	stage  string   // where it is mounted on the host for a moment, below the run directory; "" if it is not
	number int      // of the staged tree, in init's stub
}

func (c *Cell) openVolumes(f *furnishing, mounts []Mount) error {
	for i, m := range mounts {
		v := volume{Mount: m, isDir: true}
		if m.Source == "" {
			f.volumes = append(f.volumes, v)
			continue
		}
		info, err := os.Stat(m.Source)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		v.isDir = info.IsDir()
		tree, err := openTree(m.Source, f.idmap, m.ReadOnly)
		if err == nil && m.ReadOnly && f.idmap != nil {
			v.stage = filepath.Join(volumesDir, strconv.Itoa(i))
			err = errors.Join(c.stage(v, tree), tree.Close())
		} else if err == nil {
			v.tree = f.add(tree)
		}
		if err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.Source, m.Target, err)
		}
		f.volumes = append(f.volumes, v)
	}
	return nil
}

// stage mounts a read-only volume on the host, so that init's stub finds it in the copy of the host's mounts that it
// makes. That makes read-only a flag that the instance's root cannot change: mount_namespaces(7), "Restrictions on mount
// namespaces".
func (c *Cell) stage(v volume, tree *os.File) error {
	at := filepath.Join(c.run, v.stage)
	var err error
	if v.isDir {
		err = os.Mkdir(at, 0o755)
	} else {
		err = os.WriteFile(at, nil, 0o644)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// takeStaged lets init's stub take its copies of the staged volumes, and removes ours.
func (c *Cell) takeStaged(ctx context.Context, f *furnishing) error {
	var b *remote.Batch
	results := make(map[int]remote.Result)
	err := c.Init.run(ctx, func(batch *remote.Batch) {
		b = batch
		for i, v := range f.volumes {
			if v.stage != "" {
				results[i] = b.Call("take "+v.Source, unix.SYS_OPEN_TREE, unix.AT_FDCWD, b.String(v.stage), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
			}
		}
	})
	if err != nil {
		return err
	}
	for i, r := range results {
		n, err := b.Value(r)
		if err != nil {
			return err
		}
		f.volumes[i].number = int(n)
	}
	return Clean(c.run)
}

// Clean removes what a cell that was being built may have left mounted below its run directory. It is for the run directory of a cell
// whose daemon died then; without one it does nothing.
func Clean(run string) error {
	entries, err := os.ReadDir(filepath.Join(run, volumesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		at := filepath.Join(run, volumesDir, e.Name())
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
		if err := os.Remove(at); err != nil {
			return err
		}
	}
	return nil
}

// openFiles makes the files that are mounted over the instance's own.
func (c *Cell) openFiles(f *furnishing, spec Spec) error {
	id := spec.BootID
	if id == "" {
		var err error
		if id, err = newBootID(); err != nil {
			return err
		}
	}
	for i, file := range append(slices.Clone(spec.Files), File{bootIDFile, id + "\n"}) {
		name := filepath.Join(c.run, fmt.Sprintf("file%d", i))
		if err := os.WriteFile(name, []byte(file.Content), 0o444); err != nil {
			return err
		}
		tree, err := openTree(name, f.idmap, false)
		if f.idmap != nil && errors.Is(err, unix.EINVAL) {
			tree, err = openTree(name, nil, false) // before Linux 6.3 a tmpfs cannot be id-mapped; nobody's file will do
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", file.Path, err)
		}
		f.volumes = append(f.volumes, volume{Mount: Mount{Source: name, Target: file.Path}, tree: f.add(tree)})
	}
	return nil
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

func newBootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	return strings.TrimSpace(string(id)), err
}

// mountVolumes adds the mounts of volumes and of our files, making the places for them if need be.
func mountVolumes(b *remote.Batch, f *furnishing) {
	for _, v := range f.volumes {
		target := path.Clean("/" + v.Target)
		makeParents(b, target)
		if v.isDir {
			b.Try("mkdir "+target, unix.SYS_MKDIR, b.String(target), 0o755)
		} else {
			b.Try("make "+target, unix.SYS_MKNOD, b.String(target), unix.S_IFREG|0o644, 0)
		}
		switch {
		case v.stage != "":
			moveTo(b, v, v.number, target)
		case v.tree != nil:
			moveTo(b, v, f.number[v.tree], target)
		default:
			mountTmpfs(b, v, target)
		}
	}
}

func moveTo(b *remote.Batch, v volume, tree int, target string) {
	b.Call("mount "+v.Source+" on "+target, unix.SYS_MOVE_MOUNT, tree, b.String(""), unix.AT_FDCWD, b.String(target),
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
}

func mountTmpfs(b *remote.Batch, v volume, target string) {
	flags, options := uint64(nosuid|nodev), "mode=755"
	if v.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if v.Size != 0 {
		options += fmt.Sprintf(",size=%d", v.Size)
	}
	kind := b.String("tmpfs")
	b.Call("mount tmpfs on "+target, unix.SYS_MOUNT, kind, b.String(target), kind, flags, b.String(options))
}

func makeParents(b *remote.Batch, target string) {
	for at, r := range target {
		if r == '/' && at > 0 {
			b.Try("mkdir "+target[:at], unix.SYS_MKDIR, b.String(target[:at]), 0o755)
		}
	}
}
