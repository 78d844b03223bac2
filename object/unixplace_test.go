package object

import (
	"errors"
	"os"
	"strings"
	"testing"
	"vps/dump"

	"golang.org/x/sys/unix"
)

// A socket keeps the name that it was bound to, whatever has become of the file.
func TestSocketNames(t *testing.T) {
	wantName := func(r *rig, fd, want string) {
		r.t.Helper()
		name, err := unix.Getsockname(r.fd(fd))
		if un, ok := name.(*unix.SockaddrUnix); err != nil || !ok || un.Name != want {
			r.t.Errorf("%s is bound to %+v (%v), want %s", fd, name, err, want)
		}
	}
	tests := []kindTest{
		{
			name: "in a directory that is gone",
			hold: `
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
			check: func(r *rig) {
				r.wantReads("b0", "letter", "b1", "letter")
				r.write("s0", "zero")
				r.write("s1", "one")
				r.write("c", "request")
				r.wantReads("b0", "zero", "b1", "one", "s", "request")
				wantName(r, "b1", r.path("a/b/s"))
				wantName(r, "l", r.path("a/b/s"))
				if fd, _, err := unix.Accept(r.fd("l")); err != nil {
					r.t.Errorf("accept: %v", err)
				} else {
					unix.Close(fd)
				}
				if _, err := os.Stat(r.path("a")); !errors.Is(err, os.ErrNotExist) {
					r.t.Errorf("the directory is back: %v", err)
				}
			},
		},
		{
			name: "which another file has now",
			hold: `
box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); box.bind('s')
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); sender.connect('s')
os.unlink('s'); open('s', 'w').write('a file')
ready(box=box.fileno(), sender=sender.fileno())`,
			check: func(r *rig) {
				r.write("sender", "letter")
				r.wantReads("box", "letter")
				if text, err := os.ReadFile(r.path("s")); err != nil || string(text) != "a file" {
					r.t.Errorf("the file holds %q, %v", text, err)
				}
			},
		},
		{
			name: "seen from other directories",
			hold: `
os.makedirs('real/deep'); os.symlink('real', 'link'); here = os.getcwd()
linked = socket.socket(socket.AF_UNIX); linked.bind(here + '/link/s'); linked.listen()
os.chdir('real')
relative = socket.socket(socket.AF_UNIX); relative.bind('./deep/r'); relative.listen()
os.chdir('/')
ready(linked=linked.fileno(), relative=relative.fileno())`,
			check: func(r *rig) {
				wantName(r, "linked", r.path("link/s"))
				wantName(r, "relative", "./deep/r")
				for _, file := range []string{"real/s", "real/deep/r"} {
					fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
					if err != nil {
						r.t.Fatal(err)
					}
					if err := unix.Connect(fd, &unix.SockaddrUnix{Name: r.path(file)}); err != nil {
						r.t.Errorf("connect to %s: %v", file, err)
					}
					unix.Close(fd)
				}
			},
		},
		{
			name: "of a pair and of its own peer",
			hold: `
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind('a'); b.send(b'to a'); a.send(b'to b')
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); own.bind('own'); own.connect('own'); own.send(b'to myself')
ready(a=a.fileno(), b=b.fileno(), own=own.fileno())`,
			check: func(r *rig) {
				r.wantReads("a", "to a", "b", "to b", "own", "to myself")
				r.write("a", "1")
				r.write("b", "2")
				r.write("own", "3")
				r.wantReads("b", "1", "a", "2", "own", "3")
				wantName(r, "a", "a")
			},
		},
	}
	runKinds(t, tests)
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
			h := hold(t, t.TempDir(), test.hold)
			_, err := take(t, Externals{ConsoleTTY: -1}, h.proc)
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrBusy) != test.busy {
				t.Errorf("%v, want ...%s", err, test.want)
			}
		})
	}
}

// A snapshot is hostile input: whatever a record says, there is an error that names it, and no panic.
func TestHostileSockets(t *testing.T) {
	socket := func(list ...*dump.UnixSocket) *bag {
		b := newBag()
		for i, u := range list {
			u.Id = uint64(i + 1)
			b.set.UnixSockets[u.Id] = u
		}
		return b
	}
	refuseAll(t, map[string]*bag{
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
