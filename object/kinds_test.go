package object

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
)

func TestKinds(t *testing.T) {
	runKinds(t, []kindTest{
		{
			name: "file and its offset, shared by two descriptors",
			hold: `
with open('f', 'w') as f: f.write('0123456789')
a = os.open('f', os.O_RDWR)
b = os.dup(a)
c = os.open('f', os.O_RDONLY)
d = os.open('f', os.O_WRONLY|os.O_APPEND)
os.read(a, 3); os.read(c, 7)
os.set_inheritable(b, True)
ready(a=a, b=b, c=c, d=d)`,
			check: func(r *rig) {
				r.want("a", r.read("a", 2), "34")
				r.want("b", r.read("b", 2), "56")
				r.want("c", r.read("c", 2), "78")
				r.write("d", "X")
				r.want("c", r.read("c", 9), "9X")
			},
		},
		{
			name: "directory, devices, path only",
			hold: `
os.mkdir('d')
ready(d=os.open('d', os.O_RDONLY|os.O_DIRECTORY), p=os.open('d', os.O_PATH), n=os.open('/dev/null', os.O_RDWR), z=os.open('/dev/zero', os.O_RDONLY))`,
			check: func(r *rig) {
				r.want("zero", r.read("z", 2), "\x00\x00")
				if err := unix.Mkdirat(r.fd("d"), "sub", 0o700); err != nil {
					r.t.Error(err)
				}
			},
		},
		{
			name: "locks",
			hold: `
f = os.open('f', os.O_RDWR|os.O_CREAT)
fcntl.flock(f, fcntl.LOCK_EX)
g = os.open('g', os.O_RDWR|os.O_CREAT)
fcntl.lockf(g, fcntl.LOCK_EX, 10, 5)
fcntl.lockf(g, fcntl.LOCK_SH, 0, 100)
h = os.dup(g)
ready(f=f, g=g, h=h)`,
			check: func(r *rig) {
				other, err := os.Open(r.path("f"))
				if err != nil {
					r.t.Fatal(err)
				}
				defer other.Close()
				if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
					r.t.Errorf("flock of a locked file: %v", err)
				}
			},
		},
		{
			name: "deleted file",
			hold: `
f = os.open('gone', os.O_RDWR|os.O_CREAT, 0o640); os.write(f, b'content'); os.lseek(f, 3, 0)
g = os.open('gone', os.O_RDONLY)
os.unlink('gone')
n = os.open('taken', os.O_RDWR|os.O_CREAT); os.write(n, b'old'); os.unlink('taken')
with open('kept', 'w') as k: k.write('linked')
os.link('kept', 'second'); k = os.open('second', os.O_RDONLY); os.unlink('second'); open('second', 'w').write('another')
ready(f=f, g=g, k=k)`,
			check: func(r *rig) {
				r.wantReads("f", "tent", "g", "content", "k", "linked")
				another, _ := os.ReadFile(r.path("second"))
				r.want("what has the name now", string(another), "another")
				r.write("f", "!")
				r.want("g sees what f writes", r.read("g", 9), "!")
			},
		},
		{
			name: "memfd with seals",
			hold: `
f = os.memfd_create('thing', os.MFD_ALLOW_SEALING); os.write(f, b'sealed'); os.lseek(f, 0, 0)
fcntl.fcntl(f, 1033, 0x2 | 0x4 | 0x8)
g = os.memfd_create('loose'); os.ftruncate(g, 1 << 20); os.pwrite(g, b'end', (1 << 20) - 3)
ro = os.open('/proc/self/fd/%d' % g, os.O_RDONLY); os.lseek(ro, -3, 2)
ready(f=f, ro=ro)`,
			check: func(r *rig) {
				r.wantReads("f", "sealed", "ro", "end")
				r.want("write", r.write("f", "x"), unix.EPERM.Error())
			},
		},
		{
			name: "pipe in use",
			hold: `
r, w = os.pipe(); os.write(w, b'in the pipe')
fcntl.fcntl(w, 1031, 4096)
fcntl.fcntl(w, fcntl.F_SETFL, os.O_NONBLOCK)
w2 = os.open('/proc/self/fd/%d' % w, os.O_WRONLY)
lone, x = os.pipe(); os.write(x, b'last words'); os.close(x)
y, broken = os.pipe(); os.close(y)
ready(r=r, w=w, w2=w2, lone=lone, broken=broken)`,
			check: func(r *rig) {
				r.wantReads("r", "in the pipe", "r", "(nothing)")
				r.write("w2", "more")
				r.wantReads("r", "more", "lone", "last words", "lone", "")
				r.want("write to no reader", r.write("broken", "x"), unix.EPIPE.Error())
				if size, _ := unix.FcntlInt(uintptr(r.fd("w")), unix.F_GETPIPE_SZ, 0); size != 4096 {
					r.t.Errorf("pipe of %d bytes", size)
				}
			},
		},
		{
			name:  "pipe with packets",
			hold:  "r, w = os.pipe2(os.O_DIRECT); os.write(w, b'one'); os.write(w, b'two'); ready(r=r, w=w)",
			check: func(r *rig) { r.wantReads("r", "one", "r", "two") },
		},
		{
			name: "FIFO",
			hold: `
os.mkfifo('fifo'); r = os.open('fifo', os.O_RDONLY|os.O_NONBLOCK); w = os.open('fifo', os.O_WRONLY); os.write(w, b'through')
os.mkfifo('lost'); lr = os.open('lost', os.O_RDONLY|os.O_NONBLOCK); lw = os.open('lost', os.O_WRONLY); os.unlink('lost'); os.write(lw, b'lost')
ready(r=r, w=w, lr=lr)`,
			check: func(r *rig) { r.wantReads("r", "through", "lr", "lost") },
		},
		{
			name: "eventfd",
			hold: `
e = os.eventfd(7, os.EFD_NONBLOCK); s = os.eventfd(2, os.EFD_SEMAPHORE); z = os.eventfd(0)
ready(e=e, s=s)`,
			check: func(r *rig) {
				r.wantReads("e", "\x07\x00\x00\x00\x00\x00\x00\x00", "s", "\x01\x00\x00\x00\x00\x00\x00\x00",
					"s", "\x01\x00\x00\x00\x00\x00\x00\x00", "s", "(nothing)")
			},
		},
		{
			name: "timerfd",
			hold: `
def timer(clock, value, interval, flags=0):
    fd = libc.timerfd_create(clock, 0)
    spec = struct.pack('llll', int(interval), int(interval % 1 * 1e9), int(value), int(value % 1 * 1e9))
    assert libc.timerfd_settime(fd, flags, spec, None) == 0
    return fd
once = timer(1, 300, 0); periodic = timer(1, 0.001, 500); day = timer(0, time.time() + 700, 0, 1); idle = libc.timerfd_create(7, 0)
past = timer(1, 0.001, 0)
select.select([periodic], [], []); select.select([past], [], [])
ready(once=once, periodic=periodic, day=day, past=past)`,
			change: func(b *bag) {
				var ts unix.Timespec
				unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
				b.set.Instance = &dump.Instance{Clocks: &dump.Clocks{Realtime: ts.Nano()}}
			},
			check: func(r *rig) {
				r.wantReads("periodic", "\x01\x00\x00\x00\x00\x00\x00\x00", "past", "\x01\x00\x00\x00\x00\x00\x00\x00", "once", "(nothing)")
				var left unix.ItimerSpec
				if err := unix.TimerfdGettime(r.fd("periodic"), &left); err != nil || left.Value.Sec < 490 {
					r.t.Errorf("the periodic timer does not go on after its read: %v, %v", left, err)
				}
			},
		},
		{
			name: "signalfd and owner",
			hold: `
mask = (1 << 9) | (1 << 11)
s = libc.signalfd(-1, struct.pack('Q', mask), 0)
r, w = os.pipe()
fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid()); fcntl.fcntl(r, 10, signal.SIGUSR2)
ready(s=s, r=r)`,
		},
		{
			name: "epoll, nested, and numbers that have moved",
			hold: `
r, w = os.pipe(); ep = select.epoll(); ep.register(r, select.EPOLLIN)
outer = select.epoll(); outer.register(ep.fileno(), select.EPOLLIN)
lib = ctypes.CDLL(None)
a = os.eventfd(0); moved = os.dup(a); ep2 = select.epoll(); ep2.register(a, select.EPOLLIN | select.EPOLLET); os.close(a)
b = os.eventfd(0); twice = os.dup(b); ep2.register(b, select.EPOLLOUT | select.EPOLLONESHOT)
shot = os.eventfd(0); ep3 = select.epoll(); ep3.register(shot, select.EPOLLOUT | select.EPOLLONESHOT); ep3.poll(0)
ready(r=r, w=w, ep3=ep3.fileno(), ep=ep.fileno(), outer=outer.fileno(), moved=moved, ep2=ep2.fileno())`,
			check: func(r *rig) {
				r.want("epoll", r.events("outer"), "0")
				r.want("epoll, one-shot, reported", r.events("ep3"), "0")
				r.write("w", "x")
				r.want("outer epoll", r.events("outer"), "1")
				r.want("inner epoll", r.events("ep"), "1")
				r.want("second epoll", r.events("ep2"), "1")
				r.write("moved", "\x01\x00\x00\x00\x00\x00\x00\x00")
				r.want("second epoll, watched by an old number", r.events("ep2"), "1")
			},
		},
		{
			name: "many descriptors",
			hold: `
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
fds = [os.eventfd(i) for i in range(2200)]
ready(first=fds[0], last=fds[-1])`,
			check: func(r *rig) { r.wantReads("last", "\x97\x08\x00\x00\x00\x00\x00\x00") },
		},
	})
}
