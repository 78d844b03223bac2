// Package namespace has the open files of /proc/PID/ns (namespaces(7)).
//
// Which namespace one is of is told by its inode; it is opened anew by the maker, which is in all of the instance's own.
package namespace

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// names are those of the links in /proc/PID/ns; the links that are for children show the same namespaces.
var names = []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

// dumper dumps the descriptors of namespaces of an instance.
type dumper struct{ *file.Descriptors }

// NewDumper makes the namespaces' part of a dump.
func NewDumper(d *file.Descriptors) file.Dumper { return dumper{d} }

// Claims claims all namespaces, and refuses those that the instance's init is not in.
func (d dumper) Claims(l *file.Look) (bool, error) {
	if l.FS() != unix.NSFS_MAGIC || strings.HasPrefix(l.Link, "/") { // a path: it is mounted there
		return false, nil
	}
	name := nameOf(l)
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", d.Init(), name))
	if err == nil && own != l.Link {
		err = l.At.Refusal("descriptor of another "+name+" namespace", "")
	}
	return true, err
}

func nameOf(l *file.Look) string {
	name, _, _ := strings.Cut(l.Link, ":")
	return name
}

// Dump notes the name of the namespace.
func (d dumper) Dump(f *file.OpenFile, l *file.Look) error {
	f.Record.Kind = &dump.File_Namespace{Namespace: nameOf(l)}
	return nil
}

// Finish has nothing left to do.
func (d dumper) Finish() error { return nil }

// restorer restores the descriptors of namespaces of a set.
type restorer struct{ *file.Files }

// NewRestorer makes the namespaces' part of a restore.
func NewRestorer(files *file.Files) file.Restorer { return &restorer{files} }

// Claims claims all namespaces.
func (r *restorer) Claims(f *dump.File) bool { return f.GetNamespace() != "" }

// Restore opens a namespace.
func (r *restorer) Restore(s *remote.Script, f *dump.File, fd int) error {
	name := f.GetNamespace()
	if !slices.Contains(names, name) {
		return fmt.Errorf("namespace %.20q: %w", name, object.ErrUnsupported)
	}
	r.Open(s, "/proc/self/ns/"+name, file.OpenFlags(f.GetFlags())&^unix.O_NOFOLLOW, fd)
	return nil
}

// Needs counts nothing: there are no objects behind the files.
func (r *restorer) Needs() int { return 0 }

// Make has nothing to make.
func (r *restorer) Make(*remote.Script) error { return nil }

// Finish has nothing left to do.
func (r *restorer) Finish(context.Context, *remote.Script) error { return nil }

// Close has nothing to close.
func (r *restorer) Close() error { return nil }
