package object

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/remote"
)

// bag is a sink that keeps everything, and gives it back as set and content.
type bag struct {
	set  *Set
	data map[uint64][]byte
}

func newBag() *bag {
	return &bag{
		data: make(map[uint64][]byte),
		set: &Set{
			Instance: &dump.Instance{}, FdTables: make(map[uint64]*dump.FdTable), Files: make(map[uint64]*dump.File),
			Pipes: make(map[uint64]*dump.Pipe), UnixSockets: make(map[uint64]*dump.UnixSocket), Ttys: make(map[uint64]*dump.Tty),
			Memories: make(map[uint64]*dump.Memory),
		},
	}
}

func (b *bag) Put(id uint64, m proto.Message) error {
	switch m := proto.Clone(m).(type) {
	case *dump.FdTable:
		b.set.FdTables[id] = m
	case *dump.File:
		b.set.Files[id] = m
	case *dump.Pipe:
		b.set.Pipes[id] = m
	case *dump.UnixSocket:
		b.set.UnixSockets[id] = m
	case *dump.Tty:
		b.set.Ttys[id] = m
	case *dump.Memory:
		b.set.Memories[id] = m
	default:
		return fmt.Errorf("record of type %T", m)
	}
	return nil
}

func (b *bag) Memory(id uint64, r io.ReaderAt, size int64) (err error) {
	b.data[id], err = io.ReadAll(io.NewSectionReader(r, 0, size))
	return err
}

func (b *bag) Fill(id uint64, w io.WriterAt) error {
	_, err := w.WriteAt(b.data[id], 0)
	return err
}

// prelude is what every holder begins with: Python that keeps things open and tells their numbers by name.
const prelude = `
import os, sys, json, socket, time, fcntl, struct, array, signal, select, ctypes, termios
os.closerange(3, 1024)
libc = ctypes.CDLL(None, use_errno=True)
def ready(**fds):
    with open(sys.argv[1] + '.new', 'w') as f: json.dump(fds, f)
    os.rename(sys.argv[1] + '.new', sys.argv[1])
    while True: signal.pause()
`

// holder is a process that holds objects, in a mount namespace with a devpts of its own.
type holder struct {
	proc Proc
	fds  map[string]int
	dir  string
	kill func()
}

const ownDevpts = `mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx && exec "$@"`

func hold(t *testing.T, dir, script string) *holder {
	t.Helper()
	return holdWith(t, dir, script, nil)
}

func holdWith(t *testing.T, dir, script string, stdin *os.File) *holder {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ready := filepath.Join(dir, "ready")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("unshare", "-m", "sh", "-c", ownDevpts, "sh", "/usr/bin/env", "python3", "-c", prelude+script, ready)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &holder{fds: make(map[string]int), dir: dir}
	gone := false
	h.kill = func() {
		if !gone {
			gone = true
			unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			cmd.Wait()
		}
	}
	t.Cleanup(h.kill)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(ready)
		if err == nil {
			if err := json.Unmarshal(text, &h.fds); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("holder does not get ready: %s", text)
		}
	}
	h.proc = procOf(t, cmd.Process.Pid)
	return h
}

func procOf(t *testing.T, pid int) Proc {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd) })
	return Proc{PID: pid, Host: pid, PidFD: pidfd, Comm: "holder"}
}

// take dumps the descriptors of processes.
func take(t *testing.T, ext Externals, procs ...Proc) (*bag, error) {
	t.Helper()
	b := newBag()
	d := NewDescriptors(procs, procs[0].Host, ext, b)
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

// noStubs is for a maker without children.
func noStubs(int) (*remote.Page, int) { return nil, -1 }

// restore makes what a bag holds, and gives the maker the table of the process as its own.
func (r *rig) restore(b *bag, pid int) error {
	var err error
	r.files, err = RestoreFiles(r.ctx(), r.m, b.set, b, RestoreOptions{})
	if err != nil {
		return err
	}
	r.t.Cleanup(func() { r.files.Close() })
	if err := r.files.SetOwners(r.ctx()); err != nil {
		return err
	}
	if err := r.files.Deliver(r.ctx(), noStubs); err != nil {
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
	d := NewDescriptors([]Proc{h.proc}, h.proc.Host, Externals{ConsoleTTY: -1}, nil)
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

// describeBag shows what must survive a restore: ids of inodes and times left out.
func describeBag(b *bag) string {
	var out strings.Builder
	sockets := make(map[uint64]uint64)
	for _, fd := range b.set.FdTables[1].GetFds() {
		if id := b.set.Files[fd.GetFile()].GetUnixSocket(); id != 0 && sockets[id] == 0 {
			sockets[id] = uint64(len(sockets) + 1)
		}
	}
	clean := func(ref *dump.FileRef) {
		if ref != nil {
			ref.Ino, ref.Mtime = 0, 0
		}
	}
	show := func(m proto.Message) { fmt.Fprintf(&out, "%s %s\n", m.ProtoReflect().Descriptor().Name(), text(m)) }
	show(b.set.FdTables[1])
	for _, f := range sorted(b.set.Files) {
		f := proto.CloneOf(f)
		clean(f.GetPath())
		clean(f.GetPipe().GetPath())
		if id := f.GetUnixSocket(); id != 0 {
			f.Kind = &dump.File_UnixSocket{UnixSocket: sockets[id]}
		}
		if f.GetTty() != nil {
			f.Flags &^= 0o100000 // O_LARGEFILE: none from TIOCGPTPEER
		}
		slices.SortFunc(f.GetEpoll().GetItems(), func(a, b *dump.EpollItem) int { return int(a.File) - int(b.File) })
		if v := f.GetTimerfd(); v != nil {
			v.Value = (v.Value + 5e8) / 1e9
		}
		for _, l := range f.GetLocks() {
			l.Pid = 0
		}
		if f.GetOwner() != nil {
			f.Owner.Pid = 0
		}
		show(f)
	}
	for _, p := range sorted(b.set.Pipes) {
		p := proto.CloneOf(p)
		clean(p.GetFifo())
		show(p)
	}
	var list []string
	for _, u := range sorted(b.set.UnixSockets) {
		u := proto.CloneOf(u)
		u.Id, u.Peer, u.PeerPid = sockets[u.Id], sockets[u.Peer], 0
		for i := range u.Pending {
			u.Pending[i] = sockets[u.Pending[i]]
		}
		for _, m := range u.Queue {
			m.Pid = 0
			m.Data = m.Data[:min(len(m.Data), 50)]
		}
		clean(u.Path)
		list = append(list, fmt.Sprintf("%03d %s\n", u.Id, text(u)))
	}
	slices.Sort(list)
	out.WriteString(strings.Join(list, ""))
	for _, u := range sorted(b.set.Ttys) {
		show(u)
	}
	for _, m := range sorted(b.set.Memories) {
		fmt.Fprintf(&out, "%s %.40q\n", text(m), b.data[m.Id])
	}
	return out.String()
}

func text(m proto.Message) string {
	data, err := json.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func TestKinds(t *testing.T) {
	for _, test := range kindTests {
		t.Run(test.name, func(t *testing.T) { runKind(t, test) })
	}
}
