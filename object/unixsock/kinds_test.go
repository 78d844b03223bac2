package unixsock_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vps/internal/objecttest"
)

func TestKinds(t *testing.T) {
	objecttest.RunKinds(t, []objecttest.KindTest{
		{
			Name: "Unix stream pair with data and descriptors in flight",
			Hold: `
a, b = socket.socketpair()
r, w = os.pipe(); os.write(w, b'flying')
a.sendmsg([b'with files'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [r, a.fileno()]))])
os.close(r)
b.send(b'back'); b.shutdown(socket.SHUT_WR)
os.seteuid(1234); p, q = socket.socketpair(); os.seteuid(0)
c, d = socket.socketpair(); d.send(b'then gone'); d.close()
c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30000); c.setblocking(False)
ready(a=a.fileno(), b=b.fileno(), w=w, c=c.fileno(), p=p.fileno())`,
			Check: func(r *objecttest.Rig) {
				if who, err := unix.GetsockoptUcred(r.FD("p"), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil || who.Uid != 1234 {
					r.T.Errorf("peer %+v, %v", who, err)
				}
				r.WantReads("a", "back", "a", "", "c", "then gone", "c", "")
				control := make([]byte, 100)
				size, n, _, _, err := unix.Recvmsg(r.FD("b"), make([]byte, 100), control, 0)
				if err != nil || size != 10 {
					r.T.Fatalf("receive %d bytes, %v", size, err)
				}
				list, _ := unix.ParseSocketControlMessage(control[:n])
				fds, err := unix.ParseUnixRights(&list[0])
				if err != nil || len(fds) != 2 {
					r.T.Fatalf("descriptors %v, %v", fds, err)
				}
				buf := make([]byte, 10)
				n, _ = unix.Read(fds[0], buf)
				r.Want("pipe that flew", string(buf[:n]), "flying")
				unix.Write(fds[1], []byte("self"))
				r.WantReads("b", "self")
				unix.Close(fds[0])
				unix.Close(fds[1])
			},
		},
		{
			Name: "Unix listener with accepted and waiting connections",
			Hold: `
l = socket.socket(socket.AF_UNIX); l.bind(os.path.abspath('sock')); l.listen(17); os.chmod('sock', 0o640); os.chown('sock', 7, 8)
c1 = socket.socket(socket.AF_UNIX); c1.connect('sock'); s1, _ = l.accept(); c1.send(b'request'); s1.send(b'answer')
c2 = socket.socket(socket.AF_UNIX); c2.connect('sock')
ab = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); ab.bind(b'\0vps-test-%d' % os.getpid()); ab.listen(1)
ready(l=l.fileno(), c1=c1.fileno(), s1=s1.fileno(), c2=c2.fileno(), ab=ab.fileno())`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("s1", "request", "c1", "answer")
				fd, _, err := unix.Accept(r.FD("l"))
				if err != nil {
					r.T.Fatal(err)
				}
				defer unix.Close(fd)
				unix.Write(fd, []byte("hello, waiting one"))
				r.WantReads("c2", "hello, waiting one")
				name, err := unix.Getpeername(r.FD("c1"))
				if un, ok := name.(*unix.SockaddrUnix); err != nil || !ok || un.Name != r.Path("sock") {
					r.T.Errorf("peer name %v, %v", name, err)
				}
				var st unix.Stat_t
				if err := unix.Stat(r.Path("sock"), &st); err != nil || st.Uid != 7 || st.Gid != 8 || st.Mode&0o777 != 0o640 {
					r.T.Errorf("socket file %+v, %v", st, err)
				}
			},
		},
		{
			Name: "Unix connection whose listener and file are gone",
			Hold: `
l = socket.socket(socket.AF_UNIX); l.bind('rel'); l.listen(); c = socket.socket(socket.AF_UNIX); c.connect('rel'); s, _ = l.accept()
l.close(); os.unlink('rel'); open('rel', 'w').write('another')
s.send(b'still here')
ready(s=s.fileno(), c=c.fileno())`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("c", "still here")
				text, _ := os.ReadFile(r.Path("rel"))
				r.Want("what has the path now", string(text), "another")
			},
		},
		{
			Name: "Unix datagrams",
			Hold: `
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.send(b'one'); a.send(b'two'); a.send(b'x' * 100000)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); log.bind(os.path.abspath('log.sock')); log.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); named.bind('from'); named.sendto(b'signed', 'log.sock')
anon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); anon.connect('log.sock'); anon.send(b'anonymous')
gone = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); gone.bind('gone'); gone.sendto(b'from the dead', 'log.sock'); gone.close(); os.unlink('gone')
ready(a=a.fileno(), b=b.fileno(), log=log.fileno(), anon=anon.fileno(), named=named.fileno())`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("b", "one", "b", "two", "log", "signed", "log", "anonymous", "log", "from the dead", "log", "(nothing)")
				r.Write("anon", "again")
				r.WantReads("log", "again")
			},
		},
		{
			Name: "Unix sequenced packets",
			Hold: `
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); a.send(b'one'); a.send(b'two'); b.send(b'three')
ready(a=a.fileno(), b=b.fileno())`,
			Check: func(r *objecttest.Rig) { r.WantReads("b", "one", "b", "two", "a", "three") },
		},
	})
}
