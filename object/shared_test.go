package object

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/remote"
)

func TestRefusals(t *testing.T) {
	tests := []struct{ name, hold, want string }{
		{"inotify", "ready(x=libc.inotify_init1(0))", "inotify is not supported"},
		{"io_uring", "ready(x=libc.syscall(425, 4, struct.pack('120x')))", "io_uring is not supported"},
		{"userfaultfd", "ready(x=libc.syscall(323, 1))", "userfaultfd is not supported"},
		{"pidfd", "ready(x=libc.syscall(434, os.getpid(), 0))", "pidfd is not supported"},
		{"TCP", "s = socket.socket(); ready(x=s.fileno())", "TCP socket is not supported"},
		{"UDP", "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); ready(x=s.fileno())", "UDP socket is not supported"},
		{"netlink", "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); ready(x=s.fileno())", "netlink socket is not supported"},
		{"namespace", "ready(x=os.open('/proc/self/ns/net', os.O_RDONLY))", "net descriptor is not supported"},
		{"file of a process", "ready(x=os.open('/proc/self/status', os.O_RDONLY))", "/status is not supported"},
		{"lease", "x = os.open('l', os.O_RDWR|os.O_CREAT); fcntl.fcntl(x, 1024, fcntl.F_WRLCK); ready(x=x)", "lease on"},
		{"deleted directory", "os.mkdir('d'); x = os.open('d', os.O_RDONLY); os.rmdir('d'); ready(x=x)", "deleted directory"},
		{"file whose name is another's now", "x = os.open('a', os.O_RDWR|os.O_CREAT); os.mkdir('d'); os.link('a', 'd/b'); os.unlink('a'); open('a', 'w'); ready(x=x)", "its other names are not known"},
		{"timer that wakes the machine", "ready(x=libc.timerfd_create(9, 0))", "timerfd that wakes"},
		{"device", "ready(x=os.open('/dev/kmsg', os.O_RDONLY))", "device /dev/kmsg is not supported"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := hold(t, t.TempDir(), test.hold)
			d := NewDescriptors([]Proc{h.proc}, h.proc.Host, Externals{ConsoleTTY: -1}, nil)
			errs := d.Probe(h.proc)
			want := fmt.Sprintf("pid %d (holder) fd %d: ", h.proc.PID, h.fds["x"])
			if len(errs) != 1 || !errors.Is(errs[0], ErrUnsupported) || !strings.Contains(errs[0].Error(), test.want) ||
				!strings.HasPrefix(errs[0].Error(), want) {
				t.Errorf("probe: %v, want %s…%s", errs, want, test.want)
			}
			if _, err := take(t, Externals{ConsoleTTY: -1}, h.proc); !errors.Is(err, ErrUnsupported) {
				t.Errorf("dump: %v", err)
			}
		})
	}
}

// Whatever lies outside of the instance is refused or, if it is ours, hung up after the restore.
func TestExternalPipes(t *testing.T) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	in, out := os.NewFile(uintptr(ends[0]), "in"), os.NewFile(uintptr(ends[1]), "out")
	defer in.Close()
	defer out.Close()
	out.WriteString("unread input")
	h := holdWith(t, t.TempDir(), "ready(stdin=0)", in)
	in.Close()
	if _, err := take(t, Externals{ConsoleTTY: -1}, h.proc); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "outside") {
		t.Fatalf("dump with a foreign pipe: %v", err)
	}
	var st unix.Stat_t
	unix.Fstat(int(out.Fd()), &st)
	b, err := take(t, Externals{ConsoleTTY: -1, Pipes: map[uint64]bool{st.Ino: true}}, h.proc)
	if err != nil {
		t.Fatal(err)
	}
	h.kill()
	r := newRig(t)
	r.fds, r.dir = h.fds, h.dir
	if err := r.restore(b, h.proc.PID); err != nil {
		t.Fatal(err)
	}
	r.wantReads("stdin", "unread input", "stdin", "")
}

func TestSharedDescriptors(t *testing.T) {
	h := hold(t, t.TempDir(), `
with open('f', 'w') as f: f.write('0123456789')
f = os.open('f', os.O_RDONLY)
ep = select.epoll(); ep.register(libc.eventfd(0, 0), select.EPOLLIN)
forked = os.fork()
if forked == 0:
    g = os.open('f', os.O_RDONLY)
    while True: signal.pause()
same = libc.syscall(56, 0x400 | 17, 0, 0, 0, 0) # clone(CLONE_FILES)
if same == 0:
    while True: libc.pause()
time.sleep(0.1)
ready(f=f, forked=forked, same=same)`)
	forked, same := procOf(t, h.fds["forked"]), procOf(t, h.fds["same"])
	b := newBag()
	d := NewDescriptors([]Proc{h.proc, forked, same}, h.proc.Host, Externals{ConsoleTTY: -1}, b)
	var tables [3]uint64
	for i, p := range []Proc{h.proc, forked, same} {
		var err error
		if tables[i], err = d.Dump(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tables[0] != tables[2] || tables[0] == tables[1] {
		t.Errorf("tables %v: the first and the last are one", tables)
	}
	first, second := b.set.FdTables[tables[0]].GetFds(), b.set.FdTables[tables[1]].GetFds()
	for i := range first {
		if !proto.Equal(first[i], second[i]) {
			t.Errorf("descriptor %v was inherited as %v", first[i], second[i])
		}
	}
	if len(second) != len(first)+1 || second[len(first)].GetFile() <= first[len(first)-1].GetFile() {
		t.Errorf("the second process's own file: %v", second)
	}
	h.kill()
}

func TestThreadWithOwnTable(t *testing.T) {
	h := hold(t, t.TempDir(), `
import threading
e = threading.Event()
def body():
    libc.unshare(0x400); e.set() # CLONE_FILES
    time.sleep(1000)
threading.Thread(target=body, daemon=True).start(); e.wait()
ready(x=0)`)
	errs := NewDescriptors([]Proc{h.proc}, h.proc.Host, Externals{ConsoleTTY: -1}, nil).Probe(h.proc)
	if len(errs) != 1 || !errors.Is(errs[0], ErrUnsupported) {
		t.Errorf("probe: %v", errs)
	}
}

func TestSharedMemory(t *testing.T) {
	h := hold(t, t.TempDir(), `
import mmap
m = mmap.mmap(-1, 12288); m[5000:5006] = b'shared'
ready(x=0)`)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", h.proc.Host))
	if err != nil {
		t.Fatal(err)
	}
	var where string
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "/dev/zero") {
			where, _, _ = strings.Cut(line, " ")
		}
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%s", h.proc.Host, where))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := newBag()
	d := NewDescriptors([]Proc{h.proc}, h.proc.Host, Externals{ConsoleTTY: -1}, b)
	id, err := d.Memory(f, "/dev/zero (deleted)")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.Memory(f, "/dev/zero (deleted)"); err != nil || again != id {
		t.Errorf("the same memory again: %d, %v; was %d", again, err, id)
	}
	h.kill()
	r := newRig(t)
	if r.files, err = RestoreFiles(r.ctx(), r.m, b.set, b, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	defer r.files.Close()
	fd, err := r.files.MemoryFD(id)
	if err != nil {
		t.Fatal(err)
	}
	r.fds = map[string]int{"memory": fd}
	buf := make([]byte, 12288)
	if _, err := unix.Pread(r.fd("memory"), buf, 0); err != nil || !bytes.Equal(buf, b.data[id]) || string(buf[5000:5006]) != "shared" {
		t.Errorf("content differs, %v", err)
	}
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", r.proc.Host, fd))
	r.want("name", link, "/dev/zero (deleted)")
}

// The terminal of a session whose master is outside: session and foreground group come back, and it can be hung up.
func TestControllingTerminal(t *testing.T) {
	h := hold(t, t.TempDir(), `
m, s = os.openpty()
leader = os.fork()
if leader == 0:
    os.close(m)
    os.setsid(); fcntl.ioctl(s, termios.TIOCSCTTY, 0)
    fg = os.fork()
    if fg == 0:
        while True: signal.pause()
    os.setpgid(fg, fg); os.tcsetpgrp(s, fg)
    tty = os.open('/dev/tty', os.O_RDWR)
    open('fg.new', 'w').write(str(fg)); os.rename('fg.new', 'fg')
    while True: signal.pause()
while not os.path.exists('fg'): time.sleep(0.01)
ready(leader=leader, fg=int(open('fg').read()), s=s)`)
	leader, fg := procOf(t, h.fds["leader"]), procOf(t, h.fds["fg"])
	b, err := take(t, Externals{ConsoleTTY: -1}, leader, fg)
	if err != nil {
		t.Fatal(err)
	}
	tty := b.set.Ttys[TtyID(0)]
	if int(tty.GetSession()) != leader.PID || int(tty.GetForeground()) != fg.PID || !tty.GetExternalMaster() {
		t.Fatalf("terminal %v, want session %d, group %d", tty, leader.PID, fg.PID)
	}
	unix.Kill(fg.Host, unix.SIGKILL)
	h.kill()

	r := newRig(t)
	r.fds, r.dir = h.fds, h.dir
	tty.Foreground = uint32(r.proc.PID)
	if r.files, err = RestoreFiles(r.ctx(), r.m, b.set, b, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	defer r.files.Close()
	err = r.m.Run(r.ctx(), func(batch *remote.Batch) {
		batch.Call("ignore SIGHUP", unix.SYS_RT_SIGACTION, unix.SIGHUP, batch.Words(1, 0, 0, 0), 0, 8)
		if err := errors.Join(r.files.SetTTY(batch, tty.GetId()), r.files.SetForeground(batch, tty.GetId())); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	stat, err := ReadStat(r.proc.Host)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := ControllingTTY(stat.TTY); err != nil || id != tty.GetId() || stat.TPGID != r.proc.PID {
		t.Errorf("controlling terminal %d, foreground %d, %v", id, stat.TPGID, err)
	}
	s := r.m.Page.Script(r.ctx(), r.m.PidFD)
	if err := errors.Join(r.files.Install(s, uint32(r.proc.PID), b.set.FdTables[1]), s.Run()); err != nil {
		t.Fatal(err)
	}
	if err := r.files.Close(); err != nil {
		t.Fatal(err)
	}
	r.wantReads("s", "")
}

// A snapshot is hostile input: whatever a record says, there is an error that names it, and no panic.
func TestHostileFiles(t *testing.T) {
	file := func(f *dump.File) *bag {
		b := newBag()
		f.Id = 1
		b.set.Files[1] = f
		return b
	}
	socket := func(list ...*dump.UnixSocket) *bag {
		b := newBag()
		for i, u := range list {
			u.Id = uint64(i + 1)
			b.set.UnixSockets[u.Id] = u
		}
		return b
	}
	table := func(fds ...*dump.Fd) *bag {
		b := file(&dump.File{Kind: &dump.File_Eventfd{Eventfd: &dump.EventFd{}}})
		b.set.FdTables[1] = &dump.FdTable{Id: 1, Fds: fds}
		return b
	}
	memory := func(m *dump.Memory) *bag {
		b := newBag()
		m.Id = 1
		b.set.Memories[1] = m
		return b
	}
	tty := func(m *dump.Tty) *bag {
		b := newBag()
		b.set.Ttys[1] = m
		return b
	}
	pipe := newBag()
	pipe.set.Pipes[1] = &dump.Pipe{Id: 1, Capacity: 4096, Packets: [][]byte{make([]byte, 8192)}}
	tests := map[string]*bag{
		"no kind":                  file(&dump.File{}),
		"no pipe":                  file(&dump.File{Kind: &dump.File_Pipe{Pipe: &dump.PipeEnd{Pipe: 7}}}),
		"no memory":                file(&dump.File{Kind: &dump.File_Memory{Memory: 7}}),
		"no socket":                file(&dump.File{Kind: &dump.File_UnixSocket{UnixSocket: 7}}),
		"no terminal":              file(&dump.File{Kind: &dump.File_Tty{Tty: &dump.TtyEnd{Tty: 7}}}),
		"relative path":            file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "etc/passwd"}}}),
		"no reference":             file(&dump.File{Kind: &dump.File_Path{}}),
		"another kind of file":     file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/etc/passwd", Mode: unix.S_IFDIR}}}),
		"changed file":             file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/etc/passwd", Mode: unix.S_IFREG, Mtime: 5}}}),
		"through a magic link":     file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/proc/self/fd/3", Mode: unix.S_IFREG}}}),
		"deleted elsewhere":        file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/tmp/x", Deleted: true, Other: "/etc/passwd"}}}),
		"external of no type":      file(&dump.File{Kind: &dump.File_External{External: &dump.External{}}}),
		"epoll without file":       file(&dump.File{Kind: &dump.File_Epoll{Epoll: &dump.Epoll{Items: []*dump.EpollItem{{File: 9}}}}}),
		"epoll's number":           file(&dump.File{Kind: &dump.File_Epoll{Epoll: &dump.Epoll{Items: []*dump.EpollItem{{Fd: 1 << 30, File: 1}}}}}),
		"epoll of itself":          file(&dump.File{Kind: &dump.File_Epoll{Epoll: &dump.Epoll{Items: []*dump.EpollItem{{File: 1}}}}}),
		"timerfd clock":            file(&dump.File{Kind: &dump.File_Timerfd{Timerfd: &dump.TimerFd{Clock: 99}}}),
		"table without file":       table(&dump.Fd{File: 5}),
		"huge number":              table(&dump.Fd{Fd: 1 << 31, File: 1}),
		"number twice":             table(&dump.Fd{Fd: 3, File: 1}, &dump.Fd{Fd: 3, File: 1}),
		"memory of negative size":  memory(&dump.Memory{Size: 1 << 63, Kind: dump.Memory_MEMFD}),
		"memory of a kind":         memory(&dump.Memory{Kind: 99}),
		"shared memory, no size":   memory(&dump.Memory{Kind: dump.Memory_ANON}),
		"memfd name":               memory(&dump.Memory{Kind: dump.Memory_MEMFD, Name: strings.Repeat("x", 1<<16)}),
		"deleted file's name":      memory(&dump.Memory{Kind: dump.Memory_DELETED, Name: "../x"}),
		"terminal's index":         tty(&dump.Tty{Id: 1, Index: 1 << 30}),
		"terminal's settings":      tty(&dump.Tty{Id: 1, Termios: &dump.Termios{Cc: []byte{1}}}),
		"other console":            tty(&dump.Tty{Id: 1, Console: true, Termios: &dump.Termios{Cc: make([]byte, 19)}}),
		"pipe that is too full":    pipe,
		"socket type":              socket(&dump.UnixSocket{Type: 3}),
		"socket peer":              socket(&dump.UnixSocket{Type: 1, Peer: 9}),
		"socket connected to self": socket(&dump.UnixSocket{Type: 1, Peer: 1, State: dump.UnixSocket_CONNECTED}),
		"one-sided connection":     socket(&dump.UnixSocket{Type: 1, Peer: 2, State: dump.UnixSocket_CONNECTED}, &dump.UnixSocket{Type: 1}),
		"name by a magic link":     socket(&dump.UnixSocket{Type: 1, Name: []byte("/proc/self/cwd/tmp/x"), Path: &dump.FileRef{Path: "/proc/self/cwd/tmp/x"}}),
		"name without file":        socket(&dump.UnixSocket{Type: 1, Name: []byte("/x")}),
		"long name":                socket(&dump.UnixSocket{Type: 1, Name: make([]byte, 200)}),
		"option":                   socket(&dump.UnixSocket{Type: 1, Options: []*dump.SockOpt{{Level: 1, Name: 26, Value: make([]byte, 16)}}}),
		"message without sender":   socket(&dump.UnixSocket{Type: 1, Queue: []*dump.Message{{Data: []byte("x")}}}),
		"message without file":     socket(&dump.UnixSocket{Type: 1, Queue: []*dump.Message{{Files: []uint64{4}}}}),
		"pending without socket":   socket(&dump.UnixSocket{Type: 1, Name: []byte("\x00vps-hostile"), State: dump.UnixSocket_LISTENING, Pending: []uint64{4}}),
		"listener without a name":  socket(&dump.UnixSocket{Type: 1, State: dump.UnixSocket_LISTENING}),
		"pending itself":           socket(&dump.UnixSocket{Type: 1, Name: []byte("\x00vps-hostile"), State: dump.UnixSocket_LISTENING, Pending: []uint64{1}}),
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			files, err := RestoreFiles(r.ctx(), r.m, b.set, b, RestoreOptions{})
			if err == nil {
				err = files.Deliver(r.ctx(), noStubs)
				files.Close()
			}
			if err == nil {
				t.Error("accepted")
			} else if errors.Is(err, remote.ErrGone) || r.ctx().Err() != nil {
				t.Error(err)
			} else {
				t.Log(err)
			}
		})
	}
}
