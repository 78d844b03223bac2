"""Shared anonymous memory between processes."""
import mmap
import struct

from kind import *

SIZE = 4 << 20


def test():
    shared = mmap.mmap(-1, SIZE)
    part = mmap.mmap(-1, 1 << 16, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    for i in range(0, SIZE, 4096):
        shared[i + 8:i + 16] = struct.pack("Q", i)
    part[:5] = b"hello"
    private = bytearray(b"parent" * 1000)

    def child():
        private[:5] = b"child"
        shared[0:4] = b"born"
        until(lambda: shared[0:4] == b"ping", "ping")
        for i in range(4096, SIZE, 4096):
            same(f"child: offset {i}", shared[i + 8:i + 16], struct.pack("Q", i))
        same("child: part", part[:5], b"hello")
        part[:5] = b"world"
        same("child: private", bytes(private[:6]), b"childt")
        shared[SIZE - 4:] = b"last"
        shared[0:4] = b"pong"

    def grandchild():
        pid = fork(child)
        join(pid)

    pid = fork(grandchild)
    until(lambda: shared[0:4] == b"born", "birth")
    wait()
    shared[0:4] = b"ping"
    until(lambda: shared[0:4] == b"pong", "pong")
    same("part", part[:5], b"world")
    same("end", shared[SIZE - 4:], b"last")
    same("private", bytes(private[:6]), b"parent")
    join(pid)
    late = fork(lambda: shared.__setitem__(slice(0, 4), b"late"))
    join(late)
    same("from a late child", shared[0:4], b"late")


main(test)
