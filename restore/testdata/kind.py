"""What the programs of this directory share. Each sets up state of one kind, says READY, and once the file GO is there
checks itself and writes VERDICT: PASS, or FAIL and what differs. What happens between READY and GO it must not notice."""

import ctypes
import os
import select
import signal
import sys
import threading
import time
import traceback

DIR = os.environ.get("KIND_DIR", "/tmp/kind")
LIMIT = 60  # seconds until a wait is given up

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.syscall.restype = ctypes.c_long

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_NORESERVE = 1, 2, 0x20, 0x100, 0x4000


class timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


def path(name):
    return os.path.join(DIR, name)


def write(name, text):
    with open(path(name + ".new"), "w") as f:
        f.write(text)
    os.rename(path(name + ".new"), path(name))


def there(name):
    return os.path.exists(path(name))


def ready():
    write("READY", "ready\n")


def until(condition, what, limit=LIMIT):
    """Wait until a condition holds."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            fail("never happened: " + what)
            return False
        time.sleep(0.01)
    return True


def step(name):
    """Wait until a file is there."""
    until(lambda: there(name), name)


def has(fd):
    """Whether a descriptor is open."""
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False


def wait():
    """Say READY and wait for GO."""
    ready()
    go()


def go():
    until(lambda: there("GO"), "GO", 10 * LIMIT)


def fail(text):
    """Note a difference. Any process and thread may."""
    with open(path("PROBLEMS"), "a") as f:
        f.write(text + "\n")


def check(ok, what):
    if not ok:
        fail(what)


def same(what, got, want):
    if got != want:
        fail(f"{what}: {got!r} is not {want!r}")


def within(what, got, low, high):
    if not low <= got <= high:
        fail(f"{what}: {got!r} is not within {low!r} and {high!r}")


def ok(result, what="call"):
    """The result of a C function, whose failure is raised."""
    if result == -1 or result is None:
        errno = ctypes.get_errno()
        raise OSError(errno, what + ": " + os.strerror(errno))
    return result


def call(number, *args):
    """A raw system call: its result, or -errno."""
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return -ctypes.get_errno() if result == -1 else result


def fork(body):
    """Run body in a child, whose exit status is the number that body returns, if any. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        result = body()
        code = result if type(result) is int else 0
    except BaseException:
        fail(f"pid {os.getpid()}: " + traceback.format_exc())
        code = 99
    os._exit(code)


def join(pid, want=0):
    """Wait for a child, and check its wait status."""
    _, status = os.waitpid(pid, 0)
    same(f"wait status of {pid}", status, want)


def thread(body, *args):
    """Run body in a thread."""
    def run():
        try:
            body(*args)
        except BaseException:
            fail(traceback.format_exc())
    t = threading.Thread(target=run, daemon=True)
    t.start()
    return t


def join_thread(t, limit=LIMIT):
    t.join(limit)
    check(not t.is_alive(), f"thread {t.name} does not come back")


def state(pid, tid=None):
    """State letter, as in /proc/PID/stat."""
    name = f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat"
    with open(name) as f:
        return f.read().rpartition(")")[2].split()[0]


def asleep(pid, tid=None):
    """Wait until a task sleeps in a call."""
    until(lambda: state(pid, tid) == "S", f"{pid} asleep", 10)
    time.sleep(0.02)


def status(*keys, pid="self"):
    """Lines of /proc/PID/status."""
    with open(f"/proc/{pid}/status") as f:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    return {k: lines.get(k) for k in keys}


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


def main(body):
    """Run the test and write its verdict."""
    try:
        body()
    except BaseException:
        fail(traceback.format_exc())
    problems = ""
    if there("PROBLEMS"):
        with open(path("PROBLEMS")) as f:
            problems = f.read()
    write("VERDICT", "FAIL: " + problems if problems else "PASS\n")
