package file_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vps/internal/objecttest"
)

func TestKinds(t *testing.T) {
	objecttest.RunKinds(t, []objecttest.KindTest{
		{
			Name: "file and its offset, shared by two descriptors",
			Hold: `
with open('f', 'w') as f: f.write('0123456789')
a = os.open('f', os.O_RDWR)
b = os.dup(a)
c = os.open('f', os.O_RDONLY)
d = os.open('f', os.O_WRONLY|os.O_APPEND)
os.read(a, 3); os.read(c, 7)
os.set_inheritable(b, True)
ready(a=a, b=b, c=c, d=d)`,
			Check: func(r *objecttest.Rig) {
				r.Want("a", r.Read("a", 2), "34")
				r.Want("b", r.Read("b", 2), "56")
				r.Want("c", r.Read("c", 2), "78")
				r.Write("d", "X")
				r.Want("c", r.Read("c", 9), "9X")
			},
		},
		{
			Name: "directory, devices, path only",
			Hold: `
os.mkdir('d')
ready(d=os.open('d', os.O_RDONLY|os.O_DIRECTORY), p=os.open('d', os.O_PATH), n=os.open('/dev/null', os.O_RDWR), z=os.open('/dev/zero', os.O_RDONLY))`,
			Check: func(r *objecttest.Rig) {
				r.Want("zero", r.Read("z", 2), "\x00\x00")
				if err := unix.Mkdirat(r.FD("d"), "sub", 0o700); err != nil {
					r.T.Error(err)
				}
			},
		},
		{
			Name: "locks",
			Hold: `
f = os.open('f', os.O_RDWR|os.O_CREAT)
fcntl.flock(f, fcntl.LOCK_EX)
g = os.open('g', os.O_RDWR|os.O_CREAT)
fcntl.lockf(g, fcntl.LOCK_EX, 10, 5)
fcntl.lockf(g, fcntl.LOCK_SH, 0, 100)
h = os.dup(g)
ready(f=f, g=g, h=h)`,
			Check: func(r *objecttest.Rig) {
				other, err := os.Open(r.Path("f"))
				if err != nil {
					r.T.Fatal(err)
				}
				defer other.Close()
				if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
					r.T.Errorf("flock of a locked file: %v", err)
				}
			},
		},
		{
			Name: "deleted file",
			Hold: `
f = os.open('gone', os.O_RDWR|os.O_CREAT, 0o640); os.write(f, b'content'); os.lseek(f, 3, 0)
g = os.open('gone', os.O_RDONLY)
os.unlink('gone')
n = os.open('taken', os.O_RDWR|os.O_CREAT); os.write(n, b'old'); os.unlink('taken')
with open('kept', 'w') as k: k.write('linked')
os.link('kept', 'second'); k = os.open('second', os.O_RDONLY); os.unlink('second'); open('second', 'w').write('another')
ready(f=f, g=g, k=k)`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("f", "tent", "g", "content", "k", "linked")
				another, _ := os.ReadFile(r.Path("second"))
				r.Want("what has the name now", string(another), "another")
				r.Write("f", "!")
				r.Want("g sees what f writes", r.Read("g", 9), "!")
			},
		},
		{
			Name: "memfd with seals",
			Hold: `
f = os.memfd_create('thing', os.MFD_ALLOW_SEALING); os.write(f, b'sealed'); os.lseek(f, 0, 0)
fcntl.fcntl(f, 1033, 0x2 | 0x4 | 0x8)
g = os.memfd_create('loose'); os.ftruncate(g, 1 << 20); os.pwrite(g, b'end', (1 << 20) - 3)
ro = os.open('/proc/self/fd/%d' % g, os.O_RDONLY); os.lseek(ro, -3, 2)
ready(f=f, ro=ro)`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("f", "sealed", "ro", "end")
				r.Want("write", r.Write("f", "x"), unix.EPERM.Error())
			},
		},
		{
			Name: "epoll, nested, and numbers that have moved",
			Hold: `
r, w = os.pipe(); ep = select.epoll(); ep.register(r, select.EPOLLIN)
outer = select.epoll(); outer.register(ep.fileno(), select.EPOLLIN)
lib = ctypes.CDLL(None)
a = os.eventfd(0); moved = os.dup(a); ep2 = select.epoll(); ep2.register(a, select.EPOLLIN | select.EPOLLET); os.close(a)
b = os.eventfd(0); twice = os.dup(b); ep2.register(b, select.EPOLLOUT | select.EPOLLONESHOT)
shot = os.eventfd(0); ep3 = select.epoll(); ep3.register(shot, select.EPOLLOUT | select.EPOLLONESHOT); ep3.poll(0)
ready(r=r, w=w, ep3=ep3.fileno(), ep=ep.fileno(), outer=outer.fileno(), moved=moved, ep2=ep2.fileno())`,
			Check: func(r *objecttest.Rig) {
				r.Want("epoll", r.Events("outer"), "0")
				r.Want("epoll, one-shot, reported", r.Events("ep3"), "0")
				r.Write("w", "x")
				r.Want("outer epoll", r.Events("outer"), "1")
				r.Want("inner epoll", r.Events("ep"), "1")
				r.Want("second epoll", r.Events("ep2"), "1")
				r.Write("moved", "\x01\x00\x00\x00\x00\x00\x00\x00")
				r.Want("second epoll, watched by an old number", r.Events("ep2"), "1")
			},
		},
		{
			Name: "many descriptors",
			Hold: `
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
fds = [os.eventfd(i) for i in range(2200)]
ready(first=fds[0], last=fds[-1])`,
			Check: func(r *objecttest.Rig) { r.WantReads("last", "\x97\x08\x00\x00\x00\x00\x00\x00") },
		},
	})
}
