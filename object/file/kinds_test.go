package file_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
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
			Name: "pipe in use",
			Hold: `
r, w = os.pipe(); os.write(w, b'in the pipe')
fcntl.fcntl(w, 1031, 4096)
fcntl.fcntl(w, fcntl.F_SETFL, os.O_NONBLOCK)
w2 = os.open('/proc/self/fd/%d' % w, os.O_WRONLY)
lone, x = os.pipe(); os.write(x, b'last words'); os.close(x)
y, broken = os.pipe(); os.close(y)
ready(r=r, w=w, w2=w2, lone=lone, broken=broken)`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("r", "in the pipe", "r", "(nothing)")
				r.Write("w2", "more")
				r.WantReads("r", "more", "lone", "last words", "lone", "")
				r.Want("write to no reader", r.Write("broken", "x"), unix.EPIPE.Error())
				if size, _ := unix.FcntlInt(uintptr(r.FD("w")), unix.F_GETPIPE_SZ, 0); size != 4096 {
					r.T.Errorf("pipe of %d bytes", size)
				}
			},
		},
		{
			Name:  "pipe with packets",
			Hold:  "r, w = os.pipe2(os.O_DIRECT); os.write(w, b'one'); os.write(w, b'two'); ready(r=r, w=w)",
			Check: func(r *objecttest.Rig) { r.WantReads("r", "one", "r", "two") },
		},
		{
			Name: "FIFO",
			Hold: `
os.mkfifo('fifo'); r = os.open('fifo', os.O_RDONLY|os.O_NONBLOCK); w = os.open('fifo', os.O_WRONLY); os.write(w, b'through')
os.mkfifo('lost'); lr = os.open('lost', os.O_RDONLY|os.O_NONBLOCK); lw = os.open('lost', os.O_WRONLY); os.unlink('lost'); os.write(lw, b'lost')
ready(r=r, w=w, lr=lr)`,
			Check: func(r *objecttest.Rig) { r.WantReads("r", "through", "lr", "lost") },
		},
		{
			Name: "eventfd",
			Hold: `
e = os.eventfd(7, os.EFD_NONBLOCK); s = os.eventfd(2, os.EFD_SEMAPHORE); z = os.eventfd(0)
ready(e=e, s=s)`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("e", "\x07\x00\x00\x00\x00\x00\x00\x00", "s", "\x01\x00\x00\x00\x00\x00\x00\x00",
					"s", "\x01\x00\x00\x00\x00\x00\x00\x00", "s", "(nothing)")
			},
		},
		{
			Name: "timerfd",
			Hold: `
def timer(clock, value, interval, flags=0):
    fd = libc.timerfd_create(clock, 0)
    spec = struct.pack('llll', int(interval), int(interval % 1 * 1e9), int(value), int(value % 1 * 1e9))
    assert libc.timerfd_settime(fd, flags, spec, None) == 0
    return fd
once = timer(1, 300, 0); periodic = timer(1, 0.001, 500); day = timer(0, time.time() + 700, 0, 1); idle = libc.timerfd_create(7, 0)
past = timer(1, 0.001, 0)
select.select([periodic], [], []); select.select([past], [], [])
ready(once=once, periodic=periodic, day=day, past=past)`,
			Change: func(b *objecttest.Bag) {
				var ts unix.Timespec
				unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
				b.Set.Instance = &dump.Instance{Clocks: &dump.Clocks{Realtime: ts.Nano()}}
			},
			Check: func(r *objecttest.Rig) {
				r.WantReads("periodic", "\x01\x00\x00\x00\x00\x00\x00\x00", "past", "\x01\x00\x00\x00\x00\x00\x00\x00", "once", "(nothing)")
				var left unix.ItimerSpec
				if err := unix.TimerfdGettime(r.FD("periodic"), &left); err != nil || left.Value.Sec < 490 {
					r.T.Errorf("the periodic timer does not go on after its read: %v, %v", left, err)
				}
			},
		},
		{
			Name: "signalfd and owner",
			Hold: `
mask = (1 << 9) | (1 << 11)
s = libc.signalfd(-1, struct.pack('Q', mask), 0)
r, w = os.pipe()
fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid()); fcntl.fcntl(r, 10, signal.SIGUSR2)
ready(s=s, r=r)`,
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
