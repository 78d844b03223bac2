"""epoll: many kinds of files, edge-triggered and one-shot, nested, with a watched file under a second number."""
import select
import socket

from kind import *

IN, OUT, HUP, ET, ONESHOT = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLET, select.EPOLLONESHOT


class event(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("events", ctypes.c_uint32), ("data", ctypes.c_uint64)]


def control(ep, op, fd, events=0, data=0):
    return call(233, ep, op, fd, ctypes.byref(event(events, data)))


def poll(ep):
    """What is ready: events by data."""
    buffer = (event * 32)()
    n = call(232, ep, ctypes.byref(buffer), 32, 0)
    return {buffer[i].data: buffer[i].events for i in range(n)}


def items(ep):
    with open(f"/proc/self/fdinfo/{ep}") as f:
        fields = [line.split() for line in f if line.startswith("tfd:")]
    # EPOLLERR and EPOLLHUP, which the kernel adds: one-shot items that have fired are without them, but cannot be made so.
    return sorted((int(f[1]), int(f[3], 16) & ~0x18, f[5]) for f in fields)


def test():
    ep = ok(libc.epoll_create1(0))
    full, empty = os.pipe(), os.pipe()
    os.write(full[1], b"x")
    a, b = socket.socketpair()
    b.send(b"hello")
    counter = os.eventfd(1)
    timer = ok(libc.timerfd_create(1, 0))
    master, slave = os.openpty()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0kind-epoll")
    listener.listen()
    once = os.eventfd(1)
    edge = os.pipe()
    os.write(edge[1], b"e")
    late = os.pipe()
    moved = os.pipe()
    inner = ok(libc.epoll_create1(os.O_CLOEXEC))
    nested = os.eventfd(0)
    control(inner, 1, nested, IN, 1)
    high = 1 << 63 | 5
    for fd, events, data in ((full[0], IN, 1), (empty[0], IN, 2), (a.fileno(), IN | OUT, 3), (counter, IN, high), (timer, IN, 5),
                             (master, IN, 6), (listener.fileno(), IN, 7), (once, IN | ONESHOT, 8), (edge[0], IN | ET, 9),
                             (late[0], IN | ET, 10), (inner, IN, 11)):
        same(f"add {data}", control(ep, 1, fd, events, data), 0)
    doubled = os.dup(counter)
    same("add a second number", control(ep, 1, doubled, IN, 12), 0)
    gone = os.dup(moved[0])
    same("add one to be closed", control(ep, 1, gone, IN, 13), 0)
    os.close(gone)  # its description lives on: it stays watched
    first = poll(ep)
    want = {1: IN, 3: IN | OUT, high: IN, 8: IN, 9: IN, 12: IN}
    same("at first", first, want)
    same("the second time", poll(ep), {1: IN, 3: IN | OUT, high: IN, 12: IN})
    before = items(ep)
    waiting = ok(libc.epoll_create1(0))
    bell = os.eventfd(0)
    control(waiting, 1, bell, IN, 99)

    def child():
        os.close(empty[1])
        buffer = (event * 4)()
        n = call(232, waiting, ctypes.byref(buffer), 4, -1)
        same("child", (n, buffer[0].data, there("GO")), (1, 99, True))
    pid = fork(child)
    asleep(pid)

    wait()

    same("items", items(ep), before)
    got = poll(ep)
    got.pop(9, None)  # an edge may be told again, but none may be lost
    same("after", got, {1: IN, 3: IN | OUT, high: IN, 12: IN})
    same("quiet", poll(ep).get(9), None)
    os.write(edge[1], b"f")
    os.write(late[1], b"l")
    os.write(empty[1], b"y")
    os.write(slave, b"tty\n")
    os.eventfd_write(nested, 1)
    os.write(moved[1], b"m")
    client = socket.socket(socket.AF_UNIX)
    client.connect("\0kind-epoll")
    until(lambda: readable(master), "output of the terminal", 5)
    same("all", poll(ep), {1: IN, 2: IN, 3: IN | OUT, high: IN, 12: IN, 6: IN, 7: IN, 9: IN, 10: IN, 11: IN, 13: IN})
    same("again", control(ep, 3, once, IN | ONESHOT, 8), 0)
    same("one-shot", poll(ep).get(8), IN)
    same("one-shot, once", poll(ep).get(8), None)
    same("delete", control(ep, 2, full[0]), 0)
    same("deleted", poll(ep).get(1), None)
    os.close(empty[1])
    check(poll(ep).get(2, 0) & HUP, "hang-up")
    os.eventfd_write(bell, 1)
    join(pid)


main(test)
