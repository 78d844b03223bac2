"""POSIX message queues: messages of all priorities, descriptors shared and alone, a deleted queue, notification."""
import struct

from kind import *

rt = libc
rt.mq_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
rt.mq_send.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint]
rt.mq_receive.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_uint)]
rt.mq_receive.restype = ctypes.c_ssize_t
rt.mq_unlink.argtypes = [ctypes.c_char_p]
rt.mq_getattr.argtypes = [ctypes.c_int, ctypes.c_void_p]
rt.mq_notify.argtypes = [ctypes.c_int, ctypes.c_void_p]


def mq(name, flags=os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, mode=0o640, messages=10, size=1000):
    attr = struct.pack("8q", 0, messages, size, 0, 0, 0, 0, 0)
    return ok(rt.mq_open(name, flags, mode, attr), "mq_open")


def send(fd, data, priority=0):
    return ok(rt.mq_send(fd, data, len(data), priority), "mq_send")


def receive(fd):
    buf = ctypes.create_string_buffer(8192)
    priority = ctypes.c_uint()
    n = ok(rt.mq_receive(fd, buf, 8192, ctypes.byref(priority)), "mq_receive")
    return priority.value, buf.raw[:n]


def attributes(fd):
    buf = ctypes.create_string_buffer(64)
    ok(rt.mq_getattr(fd, buf))
    st = os.fstat(fd)
    return struct.unpack("4q", buf.raw[:32]), oct(st.st_mode), st.st_uid, st.st_gid, os.readlink(f"/proc/self/fd/{fd}")


def notify(fd, number, value):
    ok(rt.mq_notify(fd, struct.pack("qii48x", value, number, 0)), "mq_notify")


def test():
    os.umask(0)
    os.chmod(DIR, 0o777)
    queue = mq(b"/first", size=8192)
    messages = [(i * 7 % 5, b"message %d" % i) for i in range(6)] + [(32767, b""), (1, b"x" * 8192), (1, bytes(range(256)) * 20), (0, b"y" * 4040)]
    for priority, data in messages:
        send(queue, data, priority)
    reader = mq(b"/first", os.O_RDONLY)
    writer = mq(b"/first", os.O_WRONLY | os.O_NONBLOCK)
    again = os.dup(writer)
    deleted = mq(b"/second", messages=3, size=100)
    send(deleted, b"in the deleted", 3)
    ok(rt.mq_unlink(b"/second"))
    second = mq(b"/second", mode=0o600)
    send(second, b"in the new", 4)
    idle = mq(b"/idle")
    os.close(mq(b"/closed", size=50))
    bypath = os.open("/dev/mqueue/closed", os.O_RDWR)
    quiet = mq(b"/quiet")
    heard = []
    signal.signal(signal.SIGUSR1, lambda *_: heard.append("SIGUSR1"))
    notify(quiet, signal.SIGUSR1, 99)

    def stranger():
        os.setgroups([])
        os.setresgid(5, 5, 5)
        os.setresuid(1000, 1000, 1000)
        os.close(mq(b"/strange", mode=0o622, messages=2))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        notify(idle, signal.SIGUSR2, 1234567890123)
        write("strange", "")
        info = signal.sigwaitinfo([signal.SIGUSR2])
        same("the child is told", (info.si_code, info.si_pid), (-3, os.getppid()))  # SI_MESGQ
    pid = fork(stranger)

    def blocked():
        empty = mq(b"/empty", os.O_RDWR | os.O_CREAT)
        write("blocked", "")
        same("received by a process that waited", receive(empty), (8, b"at last"))
    waiting = fork(blocked)
    until(lambda: there("strange") and there("blocked"), "children")
    asleep(waiting)
    fds = queue, reader, writer, again, deleted, second, idle, quiet, bypath

    def everything():
        strange = os.stat("/dev/mqueue/strange")
        return ([attributes(fd) for fd in fds], sorted(os.listdir("/dev/mqueue")), (strange.st_uid, strange.st_gid, oct(strange.st_mode)),
                [os.get_inheritable(fd) for fd in fds])
    before = everything()

    wait()

    for got, want in zip(everything(), before):
        same("queues", got, want)
    want = sorted(messages, key=lambda m: -m[0])
    same("messages", [receive(reader) for _ in want], want)
    send(again, b"later", 2)
    same("later", receive(queue), (2, b"later"))
    same("deleted", receive(deleted), (3, b"in the deleted"))
    same("second", receive(mq(b"/second", os.O_RDONLY)), (4, b"in the new"))
    try:
        send(deleted, b"x" * 101)
        fail("a message that is too long")
    except OSError:
        pass
    send(quiet, b"x")
    until(lambda: heard == ["SIGUSR1"], "SIGUSR1")
    receive(quiet)
    send(quiet, b"y")
    same("told once", heard, ["SIGUSR1"])
    send(idle, b"x")
    join(pid)
    send(mq(b"/empty", os.O_WRONLY), b"at last", 8)
    join(waiting)
    for name in b"/first", b"/second", b"/idle", b"/closed", b"/quiet", b"/strange", b"/empty":
        ok(rt.mq_unlink(name))
    same("what is left", os.listdir("/dev/mqueue"), [])


main(test)
