# Runs the lines that it is given, and says how that went. What it needs of libc stands here.
import ctypes, mmap, os, sys
M = 1 << 20
DONTNEED, FREE, MERGEABLE, HUGEPAGE, NOHUGEPAGE, PAGEOUT, GUARD_INSTALL, GUARD_REMOVE = 4, 8, 12, 14, 15, 21, 102, 103
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = libc.sbrk.restype = ctypes.c_void_p
NONE = ctypes.c_void_p(-1).value

def call(name, *args):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    r = getattr(libc, name)(*args)
    if r in (-1, NONE):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return r

def area(size):
    a = call("mmap", 0, size, 3, 0x22, -1, 0)
    call("madvise", a, size, NOHUGEPAGE)
    return a

map_ = map
def map(a, size): call("mmap", a, size, 3, 0x32, -1, 0)
def share(a, size): call("mmap", a, size, 3, 0x31, -1, 0)
def munmap(a, size): call("munmap", a, size)
def mprotect(a, size, prot): call("mprotect", a, size, prot)
def madvise(a, size, advice): call("madvise", a, size, advice)
def mlock(a, size): call("mlock", a, size)
def munlock(a, size): call("munlock", a, size)
def move(a, size):
    b = area(size)
    return call("mremap", a, size, size, 3, b)
def moveto(a, size, b): call("mremap", a, size, size, 3, b)
def keep(a, size):
    b = area(size)
    return call("mremap", a, size, size, 7, b)
def grow(a, old, new): return call("mremap", a, old, new, 1)
def sbrk(n): return call("sbrk", n)

def optional(f, *args):
    try:
        f(*args)
    except OSError as e:
        if e.errno != 22:
            raise

def guard(a, size): optional(madvise, a, size, GUARD_INSTALL)   # Linux 6.13
def unguard(a, size): optional(madvise, a, size, GUARD_REMOVE)

def mapfile(a, size):
    fd = os.open("mapped", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"file" * (size // 4), 0)
    call("mmap", a, size, 3, 0x12, fd, 0)
    os.close(fd)

def write(a, data): ctypes.memmove(a, data, len(data))
def fill(a, size, salt):
    for at in range(a, a + size, 4096):
        write(at, (at + salt).to_bytes(8, "little") * 8)
def zero(a, size): ctypes.memset(a, 0, size)
def read(a, size):
    for at in range(a, a + size, 4096):
        ctypes.string_at(at, 1)

def child(line=""):
    pid = os.fork()
    if pid == 0:
        exec(line, globals())
        os._exit(0)
    os.waitpid(pid, 0)

def print_children(n, line):
    pids = []
    for _ in range(n):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            exec(line, globals())
            os.write(w, b"ready")
            libc.pause()
            os._exit(0)
        pids.append(pid)
        os.read(r, 5)
        os.close(r)
        os.close(w)
    return " ".join(map_(str, pids))

def receive(a, size):
    r, w = os.pipe()
    if os.fork() == 0:
        os.write(w, b"received" * (size // 8))
        os._exit(0)
    os.close(w)
    for at in range(a, a + size // 8 * 8, 8000):
        call("read", r, at, min(8000, a + size // 8 * 8 - at))
    os.close(r)
    os.wait()

def vmwrite(a, size):
    class iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    data = ctypes.create_string_buffer(b"w" * size, size)
    call("process_vm_writev", os.getpid(), ctypes.byref(iovec(ctypes.addressof(data), size)), 1,
        ctypes.byref(iovec(a, size)), 1, 0)

def again():
    os.execv(sys.executable, [sys.executable, "-c", open("/proc/self/cmdline").read().split("\0")[2]])

def track(a, size):
    import fcntl, struct
    fd = call("syscall", 323, os.O_CLOEXEC | 1)
    fcntl.ioctl(fd, 0xc018aa3f, struct.pack("QQQ", 0xaa, 0, 0))
    fcntl.ioctl(fd, 0xc020aa00, bytearray(struct.pack("QQQQ", a, size, 1, 0)))

def churn(a, size, seed):
    """Changes memory for ever."""
    import random
    r = random.Random(seed)
    n = 0
    while True:
        n += 1
        at, part = a + r.randrange(size // 4096) * 4096, r.choice([1, 1, 16, 64]) * 4096
        part = min(part, a + size - at)
        what = r.randrange(20)
        if what < 9: fill(at, part, n)
        elif what < 12: madvise(at, part, DONTNEED)
        elif what == 12: munmap(at, part); map(at, part)
        elif what == 13: moveto(move(at, part), part, at)
        elif what == 14: mapfile(at, part)
        elif what == 15: map(at, part); fill(at, part, n)
        elif what == 16: zero(at, part)
        elif what == 17: share(at, part); map(at, part)
        elif what == 18: madvise(at, part, PAGEOUT)
        elif n % 50 == 0: child()

def print_state():
    import re
    status = [l for l in open("/proc/self/status") if re.match("Sig[PBIC]|Shd|FDSize|Threads|Seccomp", l)]
    return repr((os.listdir("/proc/self/fd"), len(open("/proc/self/maps").readlines()), status))

print("ok", flush=True)
for line in sys.stdin:
    try:
        result = eval(line) if line.startswith("print") else exec(line, globals())
        print("ok", result or "", flush=True)
    except BaseException as e:
        print("failed:", repr(e), flush=True)
