"""Pipes and FIFOs: content, capacity, ends that are closed, packets, readers that wait."""
import fcntl

from kind import *

F_SETPIPE_SZ, F_GETPIPE_SZ, FIONREAD, SYS_PIPE2, O_DIRECT = 1031, 1032, 0x541B, 293, 0o40000


def pipe2(flags):
    fds = (ctypes.c_int * 2)()
    same("pipe2", call(SYS_PIPE2, ctypes.byref(fds), flags), 0)
    return fds[0], fds[1]


def length(fd):
    n = ctypes.c_int()
    same("FIONREAD", call(16, fd, FIONREAD, ctypes.byref(n)), 0)
    return n.value


def test():
    own_r, own_w = os.pipe()
    os.write(own_w, b"content of a pipe")
    empty_r, empty_w = os.pipe()
    big_r, big_w = os.pipe()
    fcntl.fcntl(big_w, F_SETPIPE_SZ, 1 << 19)
    blob = bytes(range(256)) * 1200
    os.write(big_w, blob)
    full_r, full_w = os.pipe()
    os.set_blocking(full_w, False)
    total = 0
    try:
        while True:
            total += os.write(full_w, b"f" * 4096)
    except BlockingIOError:
        pass
    small_r, small_w = os.pipe()  # many writes of one byte: one page each, until they are merged
    for i in range(100):
        os.write(small_w, bytes([i]))
    half_r, half_w = os.pipe()
    os.write(half_w, b"last words")
    os.close(half_w)
    broken_r, broken_w = os.pipe()
    os.close(broken_r)
    packet_r, packet_w = pipe2(O_DIRECT)
    for word in (b"one", b"second", b"3"):
        os.write(packet_w, word)
    os.mkfifo(path("fifo"), 0o640)
    fifo = os.open(path("fifo"), os.O_RDWR | os.O_NONBLOCK)
    fifo_w = os.open(path("fifo"), os.O_WRONLY)
    os.write(fifo_w, b"in the fifo")
    os.mkfifo(path("lost"))
    lost_r = os.open(path("lost"), os.O_RDONLY | os.O_NONBLOCK)
    lost_w = os.open(path("lost"), os.O_WRONLY)
    os.write(lost_w, b"in the lost")
    os.unlink(path("lost"))
    down_r, down_w = os.pipe()
    up_r, up_w = os.pipe()
    os.write(down_w, b"early ")

    def child():
        os.close(down_w)
        os.close(up_r)
        text = b""
        while not text.endswith(b"."):
            text += os.read(down_r, 100)
            os.write(up_w, b"<" + text + b">")
        same("child: end", os.read(down_r, 100), b"")
        os.close(up_w)
    pid = fork(child)
    os.close(down_r)
    os.close(up_w)
    blocked = fork(lambda: os.close(down_w) or os.close(full_r) or os.set_blocking(full_w, True) or os.write(full_w, b"tail") and None)
    asleep(pid)
    asleep(blocked)
    inode = os.fstat(own_r).st_ino == os.fstat(own_w).st_ino
    owner = os.fstat(own_r)

    wait()

    check(inode and os.fstat(own_r).st_ino == os.fstat(own_w).st_ino, "both ends are one pipe")
    same("owner", (os.fstat(own_r).st_uid, os.fstat(own_r).st_gid, os.fstat(own_r).st_mode), (owner.st_uid, owner.st_gid, owner.st_mode))
    same("length", length(own_r), 17)
    same("content", os.read(own_r, 100), b"content of a pipe")
    os.write(own_w, b"more")
    same("more", os.read(own_r, 100), b"more")
    same("empty", length(empty_r), 0)
    again = os.open(f"/proc/self/fd/{empty_w}", os.O_WRONLY)
    os.write(again, b"again")
    same("through a reopened end", os.read(empty_r, 10), b"again")
    same("capacity", fcntl.fcntl(big_r, F_GETPIPE_SZ), 1 << 19)
    got = b""
    while len(got) < len(blob):
        got += os.read(big_r, 1 << 20)
    check(got == blob, "a big pipe's content")
    same("small writes", os.read(small_r, 1000), bytes(range(100)))
    same("last words", os.read(half_r, 100), b"last words")
    same("end of file", os.read(half_r, 100), b"")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        os.write(broken_w, b"x")
        fail("a pipe without reader takes something")
    except BrokenPipeError:
        pass
    same("packets", [os.read(packet_r, 100) for _ in range(3)], [b"one", b"second", b"3"])
    os.write(packet_w, b"four")
    os.write(packet_w, b"five")
    same("a packet", os.read(packet_r, 100), b"four")
    same("fifo", os.read(fifo, 100), b"in the fifo")
    other = os.open(path("fifo"), os.O_WRONLY | os.O_NONBLOCK)
    os.write(other, b"by name")
    same("fifo by name", os.read(fifo, 100), b"by name")
    os.write(lost_w, b" one")
    same("deleted fifo", os.read(lost_r, 100), b"in the lost one")
    check(not there("lost"), "the deleted fifo is back")
    os.write(down_w, b"late")
    until(lambda: length(up_r) >= len(b"<early ><early late>"), "the child's answer", 5)
    same("answers", os.read(up_r, 100), b"<early ><early late>")
    os.write(down_w, b".")
    os.close(down_w)
    same("answer", os.read(up_r, 100), b"<early late.>")
    same("end", os.read(up_r, 100), b"")
    join(pid)
    got = 0
    while got < total + 4:
        chunk = os.read(full_r, 1 << 16)
        check(set(chunk) <= set(b"ftail"), "a full pipe's content")
        got += len(chunk)
    same("bytes of a full pipe", got, total + 4)
    join(blocked)


main(test)
