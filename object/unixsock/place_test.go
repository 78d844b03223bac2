package unixsock_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/object"
	"vps/object/file"
)

// A socket keeps the name that it was bound to, whatever has become of the file.
func TestSocketNames(t *testing.T) {
	wantName := func(r *objecttest.Rig, fd, want string) {
		r.T.Helper()
		name, err := unix.Getsockname(r.FD(fd))
		if un, ok := name.(*unix.SockaddrUnix); err != nil || !ok || un.Name != want {
			r.T.Errorf("%s is bound to %+v (%v), want %s", fd, name, err, want)
		}
	}
	tests := []objecttest.KindTest{
		{
			Name: "in a directory that is gone",
			Hold: `
os.makedirs('a/b'); name = os.path.abspath('a/b/s')
boxes, senders, ends = [], [], []
for _ in range(2):
    box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); box.bind(name); boxes.append(box)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); sender.connect(name); senders.append(sender)
    sender.send(b'letter'); os.unlink(name)
l = socket.socket(socket.AF_UNIX); l.bind(name); l.listen(3)
c = socket.socket(socket.AF_UNIX); c.connect(name); s, _ = l.accept()
waiting = socket.socket(socket.AF_UNIX); waiting.connect(name)
os.unlink(name); os.rmdir('a/b'); os.rmdir('a')
ready(b0=boxes[0].fileno(), b1=boxes[1].fileno(), s0=senders[0].fileno(), s1=senders[1].fileno(), l=l.fileno(), c=c.fileno(), s=s.fileno())`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("b0", "letter", "b1", "letter")
				r.Write("s0", "zero")
				r.Write("s1", "one")
				r.Write("c", "request")
				r.WantReads("b0", "zero", "b1", "one", "s", "request")
				wantName(r, "b1", r.Path("a/b/s"))
				wantName(r, "l", r.Path("a/b/s"))
				if fd, _, err := unix.Accept(r.FD("l")); err != nil {
					r.T.Errorf("accept: %v", err)
				} else {
					unix.Close(fd)
				}
				if _, err := os.Stat(r.Path("a")); !errors.Is(err, os.ErrNotExist) {
					r.T.Errorf("the directory is back: %v", err)
				}
			},
		},
		{
			Name: "which another file has now",
			Hold: `
box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); box.bind('s')
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); sender.connect('s')
os.unlink('s'); open('s', 'w').write('a file')
ready(box=box.fileno(), sender=sender.fileno())`,
			Check: func(r *objecttest.Rig) {
				r.Write("sender", "letter")
				r.WantReads("box", "letter")
				if text, err := os.ReadFile(r.Path("s")); err != nil || string(text) != "a file" {
					r.T.Errorf("the file holds %q, %v", text, err)
				}
			},
		},
		{
			Name: "seen from other directories",
			Hold: `
os.makedirs('real/deep'); os.symlink('real', 'link'); here = os.getcwd()
linked = socket.socket(socket.AF_UNIX); linked.bind(here + '/link/s'); linked.listen()
os.chdir('real')
relative = socket.socket(socket.AF_UNIX); relative.bind('./deep/r'); relative.listen()
os.chdir('/')
ready(linked=linked.fileno(), relative=relative.fileno())`,
			Check: func(r *objecttest.Rig) {
				wantName(r, "linked", r.Path("link/s"))
				wantName(r, "relative", "./deep/r")
				for _, file := range []string{"real/s", "real/deep/r"} {
					fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
					if err != nil {
						r.T.Fatal(err)
					}
					if err := unix.Connect(fd, &unix.SockaddrUnix{Name: r.Path(file)}); err != nil {
						r.T.Errorf("connect to %s: %v", file, err)
					}
					unix.Close(fd)
				}
			},
		},
		{
			Name: "of a pair and of its own peer",
			Hold: `
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind('a'); b.send(b'to a'); a.send(b'to b')
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); own.bind('own'); own.connect('own'); own.send(b'to myself')
ready(a=a.fileno(), b=b.fileno(), own=own.fileno())`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("a", "to a", "b", "to b", "own", "to myself")
				r.Write("a", "1")
				r.Write("b", "2")
				r.Write("own", "3")
				r.WantReads("b", "1", "a", "2", "own", "3")
				wantName(r, "a", "a")
			},
		},
	}
	objecttest.RunKinds(t, tests)
}

// What cannot be read or made again is refused by name when the queues are read.
func TestSocketRefusals(t *testing.T) {
	const listening = `l = socket.socket(socket.AF_UNIX); l.bind('s'); l.listen(); c = socket.socket(socket.AF_UNIX); c.connect('s'); `
	tests := []struct {
		name, hold, want string
		busy             bool
	}{
		{"data before accept", listening + "c.send(b'hello'); ready(x=0)", "listening socket s: a connection that is not accepted yet carries data", true},
		{"client gone before accept", listening + "c.close(); ready(x=0)", "listening socket s: a connection that is not accepted yet may carry data", true},
		{"peer with another peer", `
o = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); o.bind('s')
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); b.connect('s'); ready(x=0)`, "connected to a socket without a name that has another peer", false},
		{"another name of its file", "l = socket.socket(socket.AF_UNIX); l.bind('s'); os.link('s', 't'); os.unlink('s'); ready(x=0)", "deleted", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := objecttest.Hold(t, t.TempDir(), test.hold)
			_, err := objecttest.Take(t, file.Externals{ConsoleTTY: -1}, h.Proc)
			if !errors.Is(err, object.ErrUnsupported) || !strings.Contains(err.Error(), test.want) || errors.Is(err, object.ErrBusy) != test.busy {
				t.Errorf("%v, want ...%s", err, test.want)
			}
		})
	}
}

// A snapshot is hostile input: whatever a record says, there is an error that names it, and no panic.
func TestHostileSockets(t *testing.T) {
	socket := func(list ...*dump.UnixSocket) *objecttest.Bag {
		b := objecttest.NewBag()
		for i, u := range list {
			u.Id = uint64(i + 1)
			b.Set.UnixSockets[u.Id] = u
		}
		return b
	}
	objecttest.RefuseAll(t, map[string]*objecttest.Bag{
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
	})
}
