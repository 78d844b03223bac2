package fsnotify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// restorer restores what watches files.
type restorer struct {
	*file.Files
	made     []*dump.File
	root     *os.File            // of the instance
	fds      []*os.File          // copies of the instances made
	memories map[uint64]*os.File // files without a name that are watched
}

// NewRestorer makes the part of inotify and fanotify in a restore.
func NewRestorer(files *file.Files) file.Restorer {
	return &restorer{Files: files, memories: make(map[uint64]*os.File)}
}

// Claims claims all that watch.
func (r *restorer) Claims(f *dump.File) bool { return f.GetInotify() != nil || f.GetFanotify() != nil }

// Restore makes an instance or a group that watches nothing yet.
func (r *restorer) Restore(s *remote.Script, f *dump.File, fd int) error {
	r.made = append(r.made, f)
	if f.GetFanotify() != nil {
		return r.restoreFanotify(s, f, fd)
	}
	last := int32(0)
	for _, w := range f.GetInotify().GetWatches() {
		if w.GetWd() <= last {
			return fmt.Errorf("watch %d after watch %d", w.GetWd(), last)
		}
		last = w.GetWd()
		if err := checkTarget(w.GetFile()); err != nil {
			return err
		}
	}
	b := s.Room(1024)
	b.Call("inotify_init1", unix.SYS_INOTIFY_INIT1, 0)
	r.Settle(b, fd)
	return nil
}

func checkTarget(ref *dump.FileRef) error {
	if ref.GetMemory() != 0 {
		return nil
	}
	return object.CheckPath(ref.GetPath())
}

// watched lists what an open file watches.
func watched(f *dump.File) []*dump.FileRef {
	var refs []*dump.FileRef
	for _, w := range f.GetInotify().GetWatches() {
		refs = append(refs, w.GetFile())
	}
	for _, m := range f.GetFanotify().GetMarks() {
		refs = append(refs, m.GetFile())
	}
	return refs
}

// Finish takes copies of what the maker will not have any more.
func (r *restorer) Finish(_ context.Context, s *remote.Script) (err error) {
	if len(r.made) == 0 {
		return nil
	}
	if err := s.Run(); err != nil {
		return err
	}
	if r.root, err = os.OpenFile(fmt.Sprintf("/proc/%d/root", r.PID()), unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return err
	}
	for _, f := range r.made {
		fd, err := r.FD(f.GetId())
		if err != nil {
			return err
		}
		if err := r.take(fd, func(f *os.File) { r.fds = append(r.fds, f) }); err != nil {
			return err
		}
		for _, ref := range watched(f) {
			id := ref.GetMemory()
			if id == 0 || r.memories[id] != nil {
				continue
			}
			if fd, err = r.MemoryFD(id); err != nil {
				return err
			}
			if err := r.take(fd, func(f *os.File) { r.memories[id] = f }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *restorer) take(fd int, keep func(f *os.File)) error {
	f, err := r.Maker().Take(fd)
	if err == nil {
		keep(f)
	}
	return err
}

// Complete adds the watches: nothing that the restore does is told any more.
func (r *restorer) Complete() error {
	for i, f := range r.made {
		for _, w := range f.GetInotify().GetWatches() {
			if err := r.watch(r.fds[i], w); err != nil {
				return fmt.Errorf("file %d: watch %d on %s: %w", f.GetId(), w.GetWd(), w.GetFile().GetPath(), err)
			}
		}
		for _, m := range f.GetFanotify().GetMarks() {
			if err := r.mark(r.fds[i], m); err != nil {
				return fmt.Errorf("file %d: mark on %s: %w", f.GetId(), m.GetFile().GetPath(), err)
			}
		}
	}
	return nil
}

// target opens what is watched; done closes it.
func (r *restorer) target(ref *dump.FileRef) (target *os.File, done func(), err error) {
	if target := r.memories[ref.GetMemory()]; target != nil {
		return target, func() {}, nil
	}
	fd, err := unix.Openat2(int(r.root.Fd()), ref.GetPath(), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, nil, err
	}
	target = os.NewFile(uintptr(fd), ref.GetPath())
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != ref.GetMode()&unix.S_IFMT {
		err = fmt.Errorf("it is of another kind: %w", object.ErrChanged)
	}
	if err != nil {
		target.Close()
		return nil, nil, err
	}
	return target, func() { target.Close() }, nil
}

// watch adds a watch with its number.
func (r *restorer) watch(inotify *os.File, w *dump.InotifyWatch) error {
	target, done, err := r.target(w.GetFile())
	if err != nil {
		return err
	}
	defer done()
	if err := unix.IoctlSetInt(int(inotify.Fd()), linux.INOTIFY_IOC_SETNEXTWD, int(w.GetWd())); err != nil {
		return fmt.Errorf("choose the number: %w", err)
	}
	got, err := unix.InotifyAddWatch(int(inotify.Fd()), "/proc/self/fd/"+strconv.Itoa(int(target.Fd())), w.GetMask()|unix.IN_MASK_CREATE)
	if err != nil {
		return err
	}
	if got != int(w.GetWd()) {
		return fmt.Errorf("it got number %d", got)
	}
	return nil
}

// Needs counts nothing: there are no objects behind the files.
func (r *restorer) Needs() int { return 0 }

// Make has nothing to make.
func (r *restorer) Make(*remote.Script) error { return nil }

// Close closes the copies.
func (r *restorer) Close() error {
	files := r.fds
	for _, f := range r.memories {
		files = append(files, f)
	}
	if r.root != nil {
		files = append(files, r.root)
	}
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	r.fds, r.memories, r.root = nil, nil, nil
	return errors.Join(errs...)
}
