package file

import (
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/remote"
)

// openUnlinked opens a file by a name that is deleted, while it has another one; by that, where the first cannot be given to it
// for a moment.
func (r *Files) openUnlinked(s *remote.Script, ref *dump.FileRef, flags uint32, fd int) error {
	name, other := ref.GetPath(), ref.GetOther()
	if err := object.CheckPath(other); err != nil {
		return err
	}
	linked := false
	r.Amid(s, path.Dir(name), func(dir string) {
		if dir != path.Dir(name) || !r.IsPlace(s, path.Dir(other)) {
			return
		}
		trial := name + asideMark
		b := s.Room(len(other) + len(trial) + 512)
		link := b.Try("link "+other, unix.SYS_LINKAT, unix.AT_FDCWD, b.String(other), unix.AT_FDCWD, b.String(trial), 0)
		if s.Run() != nil {
			return // the script keeps it
		}
		if _, err := b.Value(link); err != nil {
			return // another mount
		}
		b = s.Room(len(trial) + 256)
		b.Call("unlink "+trial, unix.SYS_UNLINKAT, unix.AT_FDCWD, b.String(trial), 0)
		r.OpenAside(s, name, flags, fd, func(b *remote.Batch, at remote.Address) {
			b.Call("link "+other, unix.SYS_LINKAT, unix.AT_FDCWD, b.String(other), unix.AT_FDCWD, at, 0)
		})
		linked = true
	})
	if !linked {
		r.OpenNamed(s, other, flags, fd)
	}
	return nil
}

// IsPlace tells whether the maker has a directory, and no magic link leads there.
func (r *Files) IsPlace(s *remote.Script, dir string) bool {
	b := s.Room(len(dir) + 512)
	how := object.Place(b, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	found := b.Try("find directory "+dir, unix.SYS_OPENAT2, unix.AT_FDCWD, b.String(dir), how, unix.SizeofOpenHow)
	if err := s.Run(); err != nil {
		return false // the script keeps it
	}
	if _, err := b.Value(found); err != nil {
		return false
	}
	s.Call("close", unix.SYS_CLOSE, r.bench[0])
	return true
}

// Amid adds calls to a script during which a directory is there: what is missing of its path is made for as long. Where that
// cannot be, it is the nearest one above.
func (r *Files) Amid(s *remote.Script, dir string, calls func(dir string)) {
	var missing, made []string
	for dir != "/" && !r.IsPlace(s, dir) {
		missing = append(missing, path.Base(dir))
		dir = path.Dir(dir)
	}
	for _, name := range slices.Backward(missing) {
		below := path.Join(dir, name)
		b := s.Room(len(below) + 256)
		result := b.Try("make directory "+below, unix.SYS_MKDIRAT, unix.AT_FDCWD, b.String(below), 0o700)
		if s.Run() != nil {
			return // the script keeps it
		}
		if _, err := b.Value(result); err != nil {
			break
		}
		dir = below
		made = append(made, dir)
	}
	calls(dir)
	for _, name := range slices.Backward(made) {
		b := s.Room(len(name) + 256)
		b.Call("remove directory "+name, unix.SYS_UNLINKAT, unix.AT_FDCWD, b.String(name), unix.AT_REMOVEDIR)
	}
}

// OpenAside opens a file by a name that is deleted, in a directory that is there: create makes it at the given path. What
// has the name now keeps it. A directory is opened with O_DIRECTORY.
func (r *Files) OpenAside(s *remote.Script, name string, flags uint32, fd int, create func(b *remote.Batch, at remote.Address)) {
	aside, remove := name+asideMark, 0
	if flags&unix.O_DIRECTORY != 0 {
		remove = unix.AT_REMOVEDIR
	}
	b := s.Room(4*len(name) + 4096)
	b.Try("rename "+name, unix.SYS_RENAMEAT2, unix.AT_FDCWD, b.String(name), unix.AT_FDCWD, b.String(aside), unix.RENAME_NOREPLACE)
	create(b, b.String(name))
	r.OpenNamed(s, name, flags, fd)
	b = s.Room(4*len(name) + 1024)
	b.Call("unlink "+name, unix.SYS_UNLINKAT, unix.AT_FDCWD, b.String(name), remove)
	b.Try("rename "+aside, unix.SYS_RENAMEAT2, unix.AT_FDCWD, b.String(aside), unix.AT_FDCWD, b.String(name), unix.RENAME_NOREPLACE)
}

// asideMark is added to the name of what is out of the way for a moment.
const asideMark = ".vps"
