"""Calls that wait without a limit: none of them returns until what they wait for comes, and none says EINTR."""
import fcntl
import select
import socket

from kind import *

(SYS_READ, SYS_POLL, SYS_PAUSE, SYS_FUTEX, SYS_WAIT4, SYS_SIGSUSPEND, SYS_SIGTIMEDWAIT, SYS_EPOLL_WAIT, SYS_EPOLL_PWAIT,
 SYS_PPOLL, SYS_PSELECT, SYS_SELECT, SYS_WAITID, SYS_ACCEPT, SYS_RECVMSG, SYS_FLOCK, SYS_WRITE, SYS_OPENAT, SYS_EPOLL_PWAIT2,
 SYS_SEMOP, SYS_CLOCK_NANOSLEEP) = (0, 7, 34, 202, 61, 130, 128, 232, 281, 271, 270, 23, 247, 43, 47, 73, 1, 257, 441, 65, 230)


def test():
    actors = []  # thread or pid, what wakes it

    def waiter(what, want, number, *args, wake):
        def body():
            got = call(number, *args)
            check(there("GO"), f"{what} came back before its time, with {got}")
            same(what, got, want)
        t = thread(body)
        t.name = what
        actors.append((t, wake))

    def process(what, body, wake):
        pid = fork(body)
        actors.append((pid, lambda: wake(pid)))

    def pipe(n=1):
        r, w = os.pipe()
        return r, w, lambda: os.write(w, b"x" * n)

    buffer = ctypes.create_string_buffer(100)
    r, w, wake = pipe(3)
    waiter("read", 3, SYS_READ, r, buffer, 100, wake=wake)

    full_r, full_w = os.pipe()
    os.set_blocking(full_w, False)
    try:
        while True:
            os.write(full_w, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(full_w, True)
    waiter("write", 5, SYS_WRITE, full_w, ctypes.create_string_buffer(5), 5, wake=lambda: os.read(full_r, 1 << 20))

    def pollfd(fd):
        return (ctypes.c_int * 2)(fd, 1)

    r, w, wake = pipe()
    polled = pollfd(r)
    waiter("poll", 1, SYS_POLL, ctypes.byref(polled), 1, -1, wake=wake)
    r, w, wake = pipe()
    ppolled = pollfd(r)
    waiter("ppoll", 1, SYS_PPOLL, ctypes.byref(ppolled), 1, 0, 0, 8, wake=wake)
    r, w, wake = pipe()
    fds = (ctypes.c_ulong * 16)()
    fds[r // 64] |= 1 << r % 64
    waiter("select", 1, SYS_SELECT, r + 1, ctypes.byref(fds), 0, 0, 0, wake=wake)
    r, w, wake = pipe()
    pfds = (ctypes.c_ulong * 16)()
    pfds[r // 64] |= 1 << r % 64
    waiter("pselect", 1, SYS_PSELECT, r + 1, ctypes.byref(pfds), 0, 0, 0, 0, wake=wake)
    events = ctypes.create_string_buffer(12 * 4)
    for what, number, extra in (("epoll_wait", SYS_EPOLL_WAIT, (-1,)), ("epoll_pwait", SYS_EPOLL_PWAIT, (-1, 0, 8)),
                                ("epoll_pwait2", SYS_EPOLL_PWAIT2, (0, 0, 8)), ("epoll_wait with a limit", SYS_EPOLL_WAIT, (60000,))):
        r, w, wake = pipe()
        ep = select.epoll()
        ep.register(r, select.EPOLLIN)
        waiter(what, 1, number, os.dup(ep.fileno()), events, 4, *extra, wake=wake)
    word = ctypes.c_int(0)
    waiter("futex", 0, SYS_FUTEX, ctypes.byref(word), 128, 0, 0, 0, 0,
           wake=lambda: until(lambda: call(SYS_FUTEX, ctypes.byref(word), 129, 1, 0, 0, 0) == 1, "a futex waiter to wake", 5))

    slow_r, slow_w = os.pipe()
    slow = fork(lambda: os.read(slow_r, 1) and None)
    waiter("wait4", slow, SYS_WAIT4, slow, 0, 0, 0, wake=lambda: os.write(slow_w, b"x"))
    idle_r, idle_w = os.pipe()
    idle = fork(lambda: os.read(idle_r, 1) and None)
    waiter("waitid", 0, SYS_WAITID, 1, idle, 0, 4, 0, wake=lambda: os.write(idle_w, b"x"))

    server = socket.socket(socket.AF_UNIX)
    server.bind("\0kind-waits")
    server.listen()
    accepted = server.fileno()

    def accept():
        conn, _ = server.accept()
        check(there("GO"), "accept came back before its time")
    t = thread(accept)
    t.name = "accept"
    clients = []

    def connect():
        clients.append(socket.socket(socket.AF_UNIX))
        clients[0].connect("\0kind-waits")
    actors.append((t, connect))
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    t = thread(lambda: same("recvmsg", b.recvmsg(100)[0], b"hello") or check(there("GO"), "recvmsg came back before its time"))
    t.name = "recvmsg"
    actors.append((t, lambda: a.send(b"hello")))

    locked = os.open(path("lock"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(locked, fcntl.LOCK_EX)
    second = os.open(path("lock"), os.O_RDWR)
    waiter("flock", 0, SYS_FLOCK, second, 2, wake=lambda: fcntl.flock(locked, fcntl.LOCK_UN))

    os.mkfifo(path("fifo"))
    name = ctypes.create_string_buffer(path("fifo").encode())
    opened = []

    def opener():
        opened.append(os.open(path("fifo"), os.O_RDONLY))
        check(there("GO"), "open of a FIFO came back before its time")
    t = thread(opener)
    t.name = "open"
    actors.append((t, lambda: opened.append(os.open(path("fifo"), os.O_WRONLY))))

    def signalled(what, body):
        def child():
            same(what, body(), None)
        return child

    def pausing():
        caught = []
        signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
        same("pause", call(SYS_PAUSE), -4)
        check(there("GO"), "pause came back before its time")
        same("caught", caught, [1])

    def suspending():
        caught = []
        signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        mask = ctypes.c_ulong(0)
        same("sigsuspend", call(SYS_SIGSUSPEND, ctypes.byref(mask), 8), -4)
        check(there("GO"), "sigsuspend came back before its time")
        same("caught", caught, [1])
        same("mask", signal.pthread_sigmask(signal.SIG_BLOCK, []), {signal.SIGUSR1})

    def awaiting():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        mask = ctypes.c_ulong(1 << (signal.SIGUSR1 - 1))
        same("sigtimedwait", call(SYS_SIGTIMEDWAIT, ctypes.byref(mask), 0, 0, 8), signal.SIGUSR1)
        check(there("GO"), "sigtimedwait came back before its time")

    def masked():
        caught = []
        signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        mask = ctypes.c_ulong(0)
        same("ppoll with a mask", call(SYS_PPOLL, 0, 0, 0, ctypes.byref(mask), 8), -4)
        check(there("GO"), "ppoll with a mask came back before its time")
        same("mask", signal.pthread_sigmask(signal.SIG_BLOCK, []), {signal.SIGUSR1})

    usr1 = lambda pid: os.kill(pid, signal.SIGUSR1)
    for body in pausing, suspending, awaiting, masked:
        process(body.__name__, body, usr1)
    time.sleep(0.3)
    wait()
    time.sleep(0.1)  # a signal that comes at once runs its handler before pause(2) is made again
    for actor, wake in actors:
        wake()
        if isinstance(actor, int):
            join(actor)
        else:
            join_thread(actor, 10)


main(test)
