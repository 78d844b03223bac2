"""Contexts of asynchronous I/O: their numbers, events that nobody has fetched, a thread that waits for some."""
import struct

from kind import *

IO_SETUP, IO_DESTROY, IO_GETEVENTS, IO_SUBMIT = 206, 207, 208, 209
PREAD, PWRITE, POLL, RESFD = 0, 1, 5, 1


def setup(n):
    context = ctypes.c_ulong()
    same("io_setup", call(IO_SETUP, n, ctypes.byref(context)), 0)
    return context.value


def submit(context, fd, opcode, data, buf=0, size=0, event=0):
    iocb = ctypes.create_string_buffer(struct.pack("QIIHhIQQqQII", data, 0, 0, opcode, 0, fd, buf, size, 0, 0, RESFD if event else 0, event), 64)
    return call(IO_SUBMIT, context, 1, ctypes.byref(ctypes.c_void_p(ctypes.addressof(iocb))))


def fetch(context, least, most):
    events = ctypes.create_string_buffer(32 * most)
    n = call(IO_GETEVENTS, context, least, most, events, ctypes.byref(timespec(LIMIT, 0)))
    return [struct.unpack_from("QQqq", events, 32 * i)[::2] for i in range(n)]


def header(context):
    return struct.unpack("8I", ctypes.string_at(context, 32))[1:]


def test():
    text = ctypes.create_string_buffer(b"some text")
    address = ctypes.addressof(text)
    file = os.open(path("file"), os.O_RDWR | os.O_CREAT)
    event = os.eventfd(0)
    empty, used, busy = setup(1), setup(64), setup(500)
    for i in range(200):  # around the end of the ring
        same("io_submit", submit(used, file, PWRITE, i, address, i % 9, event), 1)
        if i < 197:
            same("event", fetch(used, 1, 2), [(i, i % 9)])
    headers = [header(c) for c in (empty, used, busy)]
    places = headers[1][0]
    check(headers[1][1] > places - 10 or headers[1][2] == 200 % places, f"ring {headers[1]}")
    done = []
    waiter = thread(lambda: done.extend(fetch(busy, 2, 5)))
    asleep(os.getpid(), waiter.native_id)

    wait()
    same("rings", [header(c) for c in (empty, used, busy)], headers)
    same("none", fetch(empty, 0, 5), [])
    same("eventfd", os.eventfd_read(event), 200)
    same("events", fetch(used, 1, 10), [(i, i % 9) for i in (197, 198, 199)])
    for i in range(3 * places):
        same("io_submit", submit(used, file, PWRITE, i, address, 4), 1)
        same("event", fetch(used, 1, 2), [(i, 4)])
    check(not done, "the thread does not wait")
    for i in range(2):
        same("io_submit", submit(busy, file, PREAD, i, address, 4), 1)
    join_thread(waiter)
    same("thread", done, [(0, 4), (1, 4)])
    for c in (empty, used, busy):
        same("io_destroy", call(IO_DESTROY, c), 0)


main(test)
