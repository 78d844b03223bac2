package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/object"
	"vps/object/file"
)

func TestRefusals(t *testing.T) {
	tests := []struct{ name, hold, want string }{
		{"fanotify", "x = libc.fanotify_init(0, 0); libc.fanotify_mark(x, 0x11, ctypes.c_uint64(2), -100, b'.'); ready(x=x)",
			"fanotify: watches a whole mount"},
		{"io_uring", "ready(x=libc.syscall(425, 4, struct.pack('120x')))", "io_uring is not supported"},
		{"userfaultfd", "ready(x=libc.syscall(323, 1))", "userfaultfd is not supported"},
		{"file of a descriptor", "ready(x=os.open('/proc/self/fdinfo/0', os.O_RDONLY))", "of a descriptor or a mapping"},
		{"vsock", "s = socket.socket(40, socket.SOCK_STREAM); ready(x=s.fileno())", "vsock socket is not supported"},
		{"lease on a deleted file", "x = os.open('l', os.O_RDWR|os.O_CREAT); fcntl.fcntl(x, 1024, fcntl.F_WRLCK); os.unlink('l'); ready(x=x)", "lease on"},
		{"timer that wakes the machine", "ready(x=libc.timerfd_create(9, 0))", "timerfd that wakes"},
		{"device", "ready(x=os.open('/dev/kmsg', os.O_RDONLY))", "device /dev/kmsg is not supported"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := objecttest.Hold(t, t.TempDir(), test.hold)
			d := objecttest.NewDescriptors(file.Externals{ConsoleTTY: -1}, nil, h.Proc)
			errs := d.Probe(h.Proc)
			want := fmt.Sprintf("pid %d (holder) fd %d: ", h.Proc.PID, h.FDs["x"])
			if len(errs) != 1 || !errors.Is(errs[0], object.ErrUnsupported) || !strings.Contains(errs[0].Error(), test.want) ||
				!strings.HasPrefix(errs[0].Error(), want) {
				t.Errorf("probe: %v, want %s…%s", errs, want, test.want)
			}
			if _, err := objecttest.Take(t, file.Externals{ConsoleTTY: -1}, h.Proc); !errors.Is(err, object.ErrUnsupported) {
				t.Errorf("dump: %v", err)
			}
		})
	}
}

func TestSharedDescriptors(t *testing.T) {
	h := objecttest.Hold(t, t.TempDir(), `
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
	forked, same := objecttest.ProcOf(t, h.FDs["forked"]), objecttest.ProcOf(t, h.FDs["same"])
	b := objecttest.NewBag()
	d := objecttest.NewDescriptors(file.Externals{ConsoleTTY: -1}, b, h.Proc, forked, same)
	var tables [3]uint64
	for i, p := range []object.Proc{h.Proc, forked, same} {
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
	first, second := b.Set.FdTables[tables[0]].GetFds(), b.Set.FdTables[tables[1]].GetFds()
	for i := range first {
		if !proto.Equal(first[i], second[i]) {
			t.Errorf("descriptor %v was inherited as %v", first[i], second[i])
		}
	}
	if len(second) != len(first)+1 || second[len(first)].GetFile() <= first[len(first)-1].GetFile() {
		t.Errorf("the second process's own file: %v", second)
	}
	h.Kill()
}

func TestThreadWithOwnTable(t *testing.T) {
	h := objecttest.Hold(t, t.TempDir(), `
import threading
e = threading.Event()
def body():
    global own, tid
    libc.unshare(0x400) # CLONE_FILES
    own, tid = os.open("own", os.O_RDWR | os.O_CREAT), threading.get_native_id()
    e.set()
    time.sleep(1000)
threading.Thread(target=body, daemon=True).start(); e.wait()
ready(own=own, tid=tid)`)
	th, err := h.Proc.Thread(h.FDs["tid"])
	if err != nil {
		t.Fatal(err)
	}
	defer th.Close()
	b := objecttest.NewBag()
	d := objecttest.NewDescriptors(file.Externals{ConsoleTTY: -1}, b, h.Proc)
	for _, p := range []object.Proc{h.Proc, th} {
		table, err := d.Dump(p)
		if err != nil {
			t.Fatal(err)
		}
		has := slices.ContainsFunc(b.Set.FdTables[table].GetFds(), func(fd *dump.Fd) bool { return int(fd.GetFd()) == h.FDs["own"] })
		if want := p.Lead == th.Lead; has != want {
			t.Errorf("the thread's descriptor is in the table of %d: %v, want %v", p.Task(), has, want)
		}
	}
	if err := d.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSharedMemory(t *testing.T) {
	h := objecttest.Hold(t, t.TempDir(), `
import mmap
m = mmap.mmap(-1, 12288); m[5000:5006] = b'shared'
ready(x=0)`)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", h.Proc.Host))
	if err != nil {
		t.Fatal(err)
	}
	var where string
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "/dev/zero") {
			where, _, _ = strings.Cut(line, " ")
		}
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%s", h.Proc.Host, where))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := objecttest.NewBag()
	d := objecttest.NewDescriptors(file.Externals{ConsoleTTY: -1}, b, h.Proc)
	id, err := d.Memory(f, "/dev/zero (deleted)")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.Memory(f, "/dev/zero (deleted)"); err != nil || again != id {
		t.Errorf("the same memory again: %d, %v; was %d", again, err, id)
	}
	h.Kill()
	r := objecttest.NewRig(t)
	if err := r.Make(b); err != nil {
		t.Fatal(err)
	}
	fd, err := r.Files.MemoryFD(id)
	if err != nil {
		t.Fatal(err)
	}
	r.FDs = map[string]int{"memory": fd}
	buf := make([]byte, 12288)
	if _, err := unix.Pread(r.FD("memory"), buf, 0); err != nil || !bytes.Equal(buf, b.Data[id]) || string(buf[5000:5006]) != "shared" {
		t.Errorf("content differs, %v", err)
	}
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", r.Proc.Host, fd))
	r.Want("name", link, "/dev/zero (deleted)")
}

// A snapshot is hostile input: whatever a record says, there is an error that names it, and no panic.
func TestHostileFiles(t *testing.T) {
	file := func(f *dump.File) *objecttest.Bag {
		b := objecttest.NewBag()
		f.Id = 1
		b.Set.Files[1] = f
		return b
	}
	table := func(fds ...*dump.Fd) *objecttest.Bag {
		b := file(&dump.File{Kind: &dump.File_Eventfd{Eventfd: &dump.EventFd{}}})
		b.Set.FdTables[1] = &dump.FdTable{Id: 1, Fds: fds}
		return b
	}
	memory := func(m *dump.Memory) *objecttest.Bag {
		b := objecttest.NewBag()
		m.Id = 1
		b.Set.Memories[1] = m
		return b
	}
	objecttest.RefuseAll(t, map[string]*objecttest.Bag{
		"no kind":                 file(&dump.File{}),
		"no pipe":                 file(&dump.File{Kind: &dump.File_Pipe{Pipe: &dump.PipeEnd{Pipe: 7}}}),
		"no memory":               file(&dump.File{Kind: &dump.File_Memory{Memory: 7}}),
		"no socket":               file(&dump.File{Kind: &dump.File_UnixSocket{UnixSocket: 7}}),
		"no terminal":             file(&dump.File{Kind: &dump.File_Tty{Tty: &dump.TtyEnd{Tty: 7}}}),
		"relative path":           file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "etc/passwd"}}}),
		"no reference":            file(&dump.File{Kind: &dump.File_Path{}}),
		"another kind of file":    file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/etc/passwd", Mode: unix.S_IFDIR}}}),
		"changed file":            file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/etc/passwd", Mode: unix.S_IFREG, Mtime: 5}}}),
		"through a magic link":    file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/proc/self/fd/3", Mode: unix.S_IFREG}}}),
		"deleted elsewhere":       file(&dump.File{Kind: &dump.File_Path{Path: &dump.FileRef{Path: "/tmp/x", Deleted: true, Other: "/etc/passwd"}}}),
		"external of no type":     file(&dump.File{Kind: &dump.File_External{External: &dump.External{}}}),
		"epoll without file":      file(&dump.File{Kind: &dump.File_Epoll{Epoll: &dump.Epoll{Items: []*dump.EpollItem{{File: 9}}}}}),
		"epoll's number":          file(&dump.File{Kind: &dump.File_Epoll{Epoll: &dump.Epoll{Items: []*dump.EpollItem{{Fd: 1 << 30, File: 1}}}}}),
		"epoll of itself":         file(&dump.File{Kind: &dump.File_Epoll{Epoll: &dump.Epoll{Items: []*dump.EpollItem{{File: 1}}}}}),
		"table without file":      table(&dump.Fd{File: 5}),
		"huge number":             table(&dump.Fd{Fd: 1 << 31, File: 1}),
		"number twice":            table(&dump.Fd{Fd: 3, File: 1}, &dump.Fd{Fd: 3, File: 1}),
		"memory of negative size": memory(&dump.Memory{Size: 1 << 63, Kind: dump.Memory_MEMFD}),
		"memory of a kind":        memory(&dump.Memory{Kind: 99}),
		"shared memory, no size":  memory(&dump.Memory{Kind: dump.Memory_ANON}),
		"memfd name":              memory(&dump.Memory{Kind: dump.Memory_MEMFD, Name: strings.Repeat("x", 1<<16)}),
		"deleted file's name":     memory(&dump.Memory{Kind: dump.Memory_DELETED, Name: "../x"}),
	})
}
