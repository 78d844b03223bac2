package object

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"vps/remote"

	"golang.org/x/sys/unix"
)

// newDescriptors prepares a dump, of which the first process is the init.
func newDescriptors(ext Externals, sink Sink, procs ...Proc) *Descriptors {
	return NewDescriptors(procs, procs[0].Host, ext, sink, NewUnixDumper, NewTtyDumper)
}

// take dumps the descriptors of processes.
func take(t *testing.T, ext Externals, procs ...Proc) (*bag, error) {
	t.Helper()
	b := newBag()
	d := newDescriptors(ext, b, procs...)
	for _, p := range procs {
		if _, err := d.Dump(p); err != nil {
			return nil, errors.Join(err, d.Finish(t.Context()))
		}
	}
	return b, d.Finish(t.Context())
}

// rig is a maker with what has been restored in it.
type rig struct {
	t     *testing.T
	m     *Maker
	proc  Proc
	files *Files
	ttys  *TtyRestorer
	fds   map[string]int
	dir   string // of the holder
}

func newRig(t *testing.T) *rig {
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
	r := &rig{t: t, m: &Maker{Page: a.Page(0), PidFD: pidfd, Socket: ours, SocketFD: 4}, proc: Proc{pid, pid, pidfd, "stub"}}
	err = r.m.Run(r.ctx(), func(b *remote.Batch) {
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

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

// make makes what a bag holds.
func (r *rig) make(b *bag) (err error) {
	r.files, err = RestoreFiles(r.ctx(), r.m, b.set, b, RestoreOptions{}, NewUnixRestorer, func(f *Files) Restorer {
		r.ttys = NewTtyRestorer(f, nil, 0)
		return r.ttys
	})
	if err == nil {
		r.t.Cleanup(func() { r.files.Close() })
	}
	return err
}

// restore makes what a bag holds, and gives the maker the table of the process as its own.
func (r *rig) restore(b *bag, pid int) error {
	if err := r.make(b); err != nil {
		return err
	}
	if err := r.files.SetOwners(r.ctx()); err != nil {
		return err
	}
	s := r.m.Page.Script(r.ctx(), r.m.PidFD)
	if err := r.files.Install(s, uint32(pid), b.set.FdTables[1]); err != nil {
		return err
	}
	at := s.Room(1024) // relative names are found from here
	at.Call("chdir", unix.SYS_CHDIR, at.String(r.dir))
	if err := s.Run(); err != nil {
		return err
	}
	return r.files.Finish()
}

// fd gives a restored descriptor by its name in the holder.
func (r *rig) fd(name string) int {
	r.t.Helper()
	f, err := r.m.Take(r.fds[name])
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// read reads what is there, without waiting.
func (r *rig) read(name string, size int) string {
	r.t.Helper()
	fd := r.fd(name)
	if poll(fd, unix.POLLIN) == 0 {
		return "(nothing)"
	}
	buf := make([]byte, size)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

func (r *rig) write(name, text string) string {
	r.t.Helper()
	if _, err := unix.Write(r.fd(name), []byte(text)); err != nil {
		return err.Error()
	}
	return ""
}

func (r *rig) want(what, got, want string) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// wantReads reads descriptors one after the other: name, text, name, text.
func (r *rig) wantReads(pairs ...string) {
	r.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		r.want("read "+pairs[i], r.read(pairs[i], 1<<16), pairs[i+1])
	}
}

type kindTest struct {
	name   string
	hold   string
	change func(*bag)
	check  func(*rig)
}

// runKind holds objects, dumps them, ends the holder, restores them, compares a dump of what was restored with the first,
// and lets the test use them.
func runKind(t *testing.T, test kindTest) {
	h := hold(t, t.TempDir(), test.hold)
	d := newDescriptors(Externals{ConsoleTTY: -1}, nil, h.proc)
	if errs := d.Probe(h.proc); len(errs) > 0 {
		t.Fatal(errs)
	}
	first, err := take(t, Externals{ConsoleTTY: -1}, h.proc)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := take(t, Externals{ConsoleTTY: -1}, h.proc)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := describeBag(first), describeBag(twice); a != b {
		t.Errorf("the dump has changed what it looked at:\n%s\nthen\n%s", a, b)
	}
	h.kill()
	if test.change != nil {
		test.change(first)
	}
	r := newRig(t)
	r.fds, r.dir = h.fds, h.dir
	if err := r.restore(first, h.proc.PID); err != nil {
		t.Fatal(err)
	}
	again, err := take(t, Externals{ConsoleTTY: -1}, r.proc)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := describeBag(first), describeBag(again); a != b {
		t.Errorf("what was restored differs:\n%s\nrestored:\n%s", a, b)
	}
	if test.check != nil {
		test.check(r)
	}
}

// runKinds runs tests one after the other.
func runKinds(t *testing.T, tests []kindTest) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { runKind(t, test) })
	}
}

// refuseAll restores hostile records: there is an error, and no panic.
func refuseAll(t *testing.T, tests map[string]*bag) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if err := r.make(b); err == nil {
				t.Error("accepted")
			} else if errors.Is(err, remote.ErrGone) || r.ctx().Err() != nil {
				t.Error(err)
			} else {
				t.Log(err)
			}
		})
	}
}

// events tells how many events an epoll instance has, "1" or more.
func (r *rig) events(name string) string {
	r.t.Helper()
	var events [8]unix.EpollEvent
	n, err := unix.EpollWait(r.fd(name), events[:], 0)
	if err != nil {
		return err.Error()
	}
	return strings.Repeat("1", n) + strings.Repeat("0", max(0, 1-n))
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }
