package mount

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// doomed is a file that is the root of a mount, and has a name only until that is in its place.
type doomed struct {
	dir  int64 // descriptor of the maker
	name string
	file bool
}

func (r *restorer) remove(d doomed) {
	flags := 0
	if !d.file {
		flags = unix.AT_REMOVEDIR
	}
	b := r.s.Room(len(d.name) + 512)
	b.Call("remove "+d.name, unix.SYS_UNLINKAT, d.dir, b.String(d.name), flags)
	b.Call("close", unix.SYS_CLOSE, d.dir)
}

// makeDeleted makes the root of a mount, which is to be removed later: by the name that it had, if that is free.
func (r *restorer) makeDeleted(mnt *dump.Mount, name string) (string, error) {
	roots := r.trees[mnt.GetId()]
	if len(roots) != 1 {
		return "", fmt.Errorf("mount %s: %d files are its root", mnt.GetTarget(), len(roots))
	}
	var last error
	for _, name := range []string{name, name + ".vps"} {
		b := r.s.Room(len(name) + 512)
		var made remote.Result
		if mnt.GetFile() {
			made = b.Try("make "+name, unix.SYS_MKNODAT, unix.AT_FDCWD, b.String(name), unix.S_IFREG|0o600, 0)
		} else {
			made = b.Try("make directory "+name, unix.SYS_MKDIRAT, unix.AT_FDCWD, b.String(name), 0o700)
		}
		if err := r.s.Run(); err != nil {
			return "", err
		}
		if _, last = b.Value(made); last != nil {
			continue
		}
		dir, err := r.find(path.Dir(name))
		if err != nil {
			return "", err
		}
		r.doomed = append(r.doomed, doomed{dir, path.Base(name), mnt.GetFile()})
		if mnt.GetFile() {
			return name, r.finishInode(name, roots[0], r.content)
		}
		return name, r.finishInode(name, roots[0], nil)
	}
	return "", last
}
