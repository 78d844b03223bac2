package objecttest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/object"
	"vps/object/file"
	"vps/object/kinds"
	"vps/object/tty"
	"vps/remote"
)

// NewDescriptors prepares a dump, of which the first process is the init.
func NewDescriptors(ext file.Externals, sink object.Sink, procs ...object.Proc) *file.Descriptors {
	return kinds.NewDescriptors(procs, procs[0].Host, ext, sink, nil)
}

// Take dumps the descriptors of processes.
func Take(t *testing.T, ext file.Externals, procs ...object.Proc) (*Bag, error) {
	t.Helper()
	b := NewBag()
	d := NewDescriptors(ext, b, procs...)
	for _, p := range procs {
		if _, err := d.Dump(p); err != nil {
			return nil, errors.Join(err, d.Finish(t.Context()))
		}
	}
	return b, d.Finish(t.Context())
}

// Rig is a maker with what has been restored in it.
type Rig struct {
	T     *testing.T
	Maker *object.Maker
	Proc  object.Proc
	Files *file.Files
	TTYs  *tty.Restorer
	FDs   map[string]int // by their names in the holder
	Dir   string         // of the holder
}

// NewRig makes a stub with mounts of its own, which ends with the test.
func NewRig(t *testing.T) *Rig {
	t.Helper()
	a, err := remote.NewArena(0x600000000000, 8, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	pid, pidfd, err := remote.Spawn(a, 0, remote.SpawnOptions{Files: []*os.File{theirs}})
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		unix.Wait4(pid, nil, unix.WALL, nil)
		unix.Close(pidfd)
		ours.Close()
		a.Close()
	})
	r := &Rig{T: t, Maker: &object.Maker{Page: a.Page(0), PidFD: pidfd, Socket: ours, SocketFD: 4}, Proc: object.Proc{PID: pid, Host: pid, PidFD: pidfd, Comm: "stub"}}
	err = r.Maker.Run(r.Context(), func(b *remote.Batch) {
		b.Call("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
		b.Call("private", unix.SYS_MOUNT, 0, b.String("/"), 0, unix.MS_REC|unix.MS_PRIVATE, 0)
		b.Call("devpts", unix.SYS_MOUNT, b.String("devpts"), b.String("/dev/pts"), b.String("devpts"), 0, b.String("newinstance,ptmxmode=0666"))
		b.Call("ptmx", unix.SYS_MOUNT, b.String("/dev/pts/ptmx"), b.String("/dev/ptmx"), 0, unix.MS_BIND, 0)
		b.Call("umask", unix.SYS_UMASK, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Context ends with the test, or before that.
func (r *Rig) Context() context.Context {
	ctx, cancel := context.WithTimeout(r.T.Context(), 10*time.Second)
	r.T.Cleanup(cancel)
	return ctx
}

// Make makes what a bag holds.
func (r *Rig) Make(b *Bag) (err error) {
	made, err := kinds.Restore(r.Context(), r.Maker, b.Set, b, kinds.Options{Options: file.Options{Bound: ^uint64(0)}})
	r.Files, r.TTYs = made.Files, made.TTYs
	if err == nil {
		r.T.Cleanup(func() { r.Files.Close() })
	}
	return err
}

// Deliver ends what Make began: the maker has no children to do anything.
func (r *Rig) Deliver() error {
	return r.Files.Deliver(r.Context(), func(int) (*remote.Page, int) { return nil, -1 })
}

// Restore makes what a bag holds, and gives the maker the table of the process as its own.
func (r *Rig) Restore(b *Bag, pid int) error {
	if err := r.Make(b); err != nil {
		return err
	}
	if err := r.Files.MakePostponed(r.Context(), nil); err != nil {
		return err
	}
	if err := r.Files.SetOwners(r.Context()); err != nil {
		return err
	}
	if err := r.Deliver(); err != nil {
		return err
	}
	s := r.Maker.Page.Script(r.Context(), r.Maker.PidFD)
	r.Files.TakeFlocks(s, uint32(pid))
	if err := r.Files.Install(s, b.Set.FdTables[1]); err != nil {
		return err
	}
	for _, taker := range []uint32{0, uint32(pid)} { // the records may have no process
		r.Files.Locks().TakeLocks(s, taker, b.Set.FdTables[1])
	}
	at := s.Room(1024) // relative names are found from here
	at.Call("chdir", unix.SYS_CHDIR, at.String(r.Dir))
	if err := s.Run(); err != nil {
		return err
	}
	return r.Files.Finish()
}

// FD gives a restored descriptor by its name in the holder.
func (r *Rig) FD(name string) int {
	r.T.Helper()
	f, err := r.Maker.Take(r.FDs[name])
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// Read reads what is there, without waiting.
func (r *Rig) Read(name string, size int) string {
	r.T.Helper()
	fd := r.FD(name)
	if file.Poll(fd, unix.POLLIN) == 0 {
		return "(nothing)"
	}
	buf := make([]byte, size)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

// Write writes, and returns the error.
func (r *Rig) Write(name, text string) string {
	r.T.Helper()
	if _, err := unix.Write(r.FD(name), []byte(text)); err != nil {
		return err.Error()
	}
	return ""
}

// Want compares two texts.
func (r *Rig) Want(what, got, want string) {
	r.T.Helper()
	if got != want {
		r.T.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// WantReads reads descriptors one after the other: name, text, name, text.
func (r *Rig) WantReads(pairs ...string) {
	r.T.Helper()
	for i := 0; i < len(pairs); i += 2 {
		r.Want("read "+pairs[i], r.Read(pairs[i], 1<<16), pairs[i+1])
	}
}

// KindTest is a test of a kind of open files.
type KindTest struct {
	Name   string
	Hold   string     // the holder's script
	Change func(*Bag) // before the restore; may be nil
	Check  func(*Rig) // uses what was restored; may be nil
}

// RunKind holds objects, dumps them, ends the holder, restores them, compares a dump of what was restored with the first,
// and lets the test use them.
func RunKind(t *testing.T, test KindTest) {
	h := Hold(t, t.TempDir(), test.Hold)
	d := NewDescriptors(file.Externals{ConsoleTTY: -1}, nil, h.Proc)
	if errs := d.Probe(h.Proc); len(errs) > 0 {
		t.Fatal(errs)
	}
	first, err := Take(t, file.Externals{ConsoleTTY: -1}, h.Proc)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := Take(t, file.Externals{ConsoleTTY: -1}, h.Proc)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := describeBag(first), describeBag(twice); a != b {
		t.Errorf("the dump has changed what it looked at:\n%s\nthen\n%s", a, b)
	}
	h.Kill()
	if test.Change != nil {
		test.Change(first)
	}
	r := NewRig(t)
	r.FDs, r.Dir = h.FDs, h.Dir
	if err := r.Restore(first, h.Proc.PID); err != nil {
		t.Fatal(err)
	}
	again, err := Take(t, file.Externals{ConsoleTTY: -1}, r.Proc)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := describeBag(first), describeBag(again); a != b {
		t.Errorf("what was restored differs:\n%s\nrestored:\n%s", a, b)
	}
	if test.Check != nil {
		test.Check(r)
	}
}

// RunKinds runs tests one after the other.
func RunKinds(t *testing.T, tests []KindTest) {
	for _, test := range tests {
		t.Run(test.Name, func(t *testing.T) { RunKind(t, test) })
	}
}

// RefuseAll restores hostile records: there is an error, and no panic.
func RefuseAll(t *testing.T, tests map[string]*Bag) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			r := NewRig(t)
			err := r.Make(b)
			if err == nil {
				err = r.Deliver()
			}
			if err == nil {
				t.Error("accepted")
			} else if errors.Is(err, remote.ErrGone) || r.Context().Err() != nil {
				t.Error(err)
			} else {
				t.Log(err)
			}
		})
	}
}

// Events tells how many events an epoll instance has, "1" or more.
func (r *Rig) Events(name string) string {
	r.T.Helper()
	var events [8]unix.EpollEvent
	n, err := unix.EpollWait(r.FD(name), events[:], 0)
	if err != nil {
		return err.Error()
	}
	return strings.Repeat("1", n) + strings.Repeat("0", max(0, 1-n))
}

// Path is that of a file of the holder.
func (r *Rig) Path(name string) string { return filepath.Join(r.Dir, name) }
