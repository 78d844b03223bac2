package object

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnixKinds(t *testing.T) {
	runKinds(t, []kindTest{
		{
			name: "Unix stream pair with data and descriptors in flight",
			hold: `
a, b = socket.socketpair()
r, w = os.pipe(); os.write(w, b'flying')
a.sendmsg([b'with files'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [r, a.fileno()]))])
os.close(r)
b.send(b'back'); b.shutdown(socket.SHUT_WR)
os.seteuid(1234); p, q = socket.socketpair(); os.seteuid(0)
c, d = socket.socketpair(); d.send(b'then gone'); d.close()
c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30000); c.setblocking(False)
ready(a=a.fileno(), b=b.fileno(), w=w, c=c.fileno(), p=p.fileno())`,
			check: func(r *rig) {
				if who, err := unix.GetsockoptUcred(r.fd("p"), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil || who.Uid != 1234 {
					r.t.Errorf("peer %+v, %v", who, err)
				}
				r.wantReads("a", "back", "a", "", "c", "then gone", "c", "")
				control := make([]byte, 100)
				size, n, _, _, err := unix.Recvmsg(r.fd("b"), make([]byte, 100), control, 0)
				if err != nil || size != 10 {
					r.t.Fatalf("receive %d bytes, %v", size, err)
				}
				list, _ := unix.ParseSocketControlMessage(control[:n])
				fds, err := unix.ParseUnixRights(&list[0])
				if err != nil || len(fds) != 2 {
					r.t.Fatalf("descriptors %v, %v", fds, err)
				}
				buf := make([]byte, 10)
				n, _ = unix.Read(fds[0], buf)
				r.want("pipe that flew", string(buf[:n]), "flying")
				unix.Write(fds[1], []byte("self"))
				r.wantReads("b", "self")
				unix.Close(fds[0])
				unix.Close(fds[1])
			},
		},
		{
			name: "Unix listener with accepted and waiting connections",
			hold: `
l = socket.socket(socket.AF_UNIX); l.bind(os.path.abspath('sock')); l.listen(17); os.chmod('sock', 0o640); os.chown('sock', 7, 8)
c1 = socket.socket(socket.AF_UNIX); c1.connect('sock'); s1, _ = l.accept(); c1.send(b'request'); s1.send(b'answer')
c2 = socket.socket(socket.AF_UNIX); c2.connect('sock')
ab = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); ab.bind(b'\0vps-test-%d' % os.getpid()); ab.listen(1)
ready(l=l.fileno(), c1=c1.fileno(), s1=s1.fileno(), c2=c2.fileno(), ab=ab.fileno())`,
			check: func(r *rig) {
				r.wantReads("s1", "request", "c1", "answer")
				fd, _, err := unix.Accept(r.fd("l"))
				if err != nil {
					r.t.Fatal(err)
				}
				defer unix.Close(fd)
				unix.Write(fd, []byte("hello, waiting one"))
				r.wantReads("c2", "hello, waiting one")
				name, err := unix.Getpeername(r.fd("c1"))
				if un, ok := name.(*unix.SockaddrUnix); err != nil || !ok || un.Name != r.path("sock") {
					r.t.Errorf("peer name %v, %v", name, err)
				}
				var st unix.Stat_t
				if err := unix.Stat(r.path("sock"), &st); err != nil || st.Uid != 7 || st.Gid != 8 || st.Mode&0o777 != 0o640 {
					r.t.Errorf("socket file %+v, %v", st, err)
				}
			},
		},
		{
			name: "Unix connection whose listener and file are gone",
			hold: `
l = socket.socket(socket.AF_UNIX); l.bind('rel'); l.listen(); c = socket.socket(socket.AF_UNIX); c.connect('rel'); s, _ = l.accept()
l.close(); os.unlink('rel'); open('rel', 'w').write('another')
s.send(b'still here')
ready(s=s.fileno(), c=c.fileno())`,
			check: func(r *rig) {
				r.wantReads("c", "still here")
				text, _ := os.ReadFile(r.path("rel"))
				r.want("what has the path now", string(text), "another")
			},
		},
		{
			name: "Unix datagrams",
			hold: `
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.send(b'one'); a.send(b'two'); a.send(b'x' * 100000)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); log.bind(os.path.abspath('log.sock')); log.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); named.bind('from'); named.sendto(b'signed', 'log.sock')
anon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); anon.connect('log.sock'); anon.send(b'anonymous')
gone = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); gone.bind('gone'); gone.sendto(b'from the dead', 'log.sock'); gone.close(); os.unlink('gone')
ready(a=a.fileno(), b=b.fileno(), log=log.fileno(), anon=anon.fileno(), named=named.fileno())`,
			check: func(r *rig) {
				r.wantReads("b", "one", "b", "two", "log", "signed", "log", "anonymous", "log", "from the dead", "log", "(nothing)")
				r.write("anon", "again")
				r.wantReads("log", "again")
			},
		},
		{
			name: "Unix sequenced packets",
			hold: `
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); a.send(b'one'); a.send(b'two'); b.send(b'three')
ready(a=a.fileno(), b=b.fileno())`,
			check: func(r *rig) { r.wantReads("b", "one", "b", "two", "a", "three") },
		},
	})
}
