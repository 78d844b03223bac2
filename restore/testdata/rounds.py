"""Processes that change much memory all the time, and know what must be in it."""

from array import array
import mmap
import random
import struct

from kind import *

SIZE, HOT = 48 << 20, 16 << 20
PAGES = SIZE // 4096


class Area:
    """Memory with a number in each page, and the same numbers elsewhere."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.want = array("Q", [0] * PAGES)
        self.step = 0
        for page in range(PAGES):
            self.put(page, page + 1)

    def put(self, page, value, count=1):
        self.want[page:page + count] = array("Q", [value]) * count
        content = struct.pack("QQ", value, ~value & (1 << 64) - 1).ljust(4096, b"-")
        self.memory[page * 4096:(page + count) * 4096] = content * count

    def forget(self, page, count):
        for p in range(page, page + count):
            self.want[p] = 0

    def change(self):
        """One change; most are of the first pages."""
        self.step += 1
        page = self.random.randrange((HOT if self.step % 8 else SIZE) // 4096 - 64)
        if self.step % 64:
            self.put(page, self.step, 1 if self.step % 4 else 32)
        elif self.step % 128:
            self.forget(page, 16)
            ok(libc.madvise(self.at + page * 4096, 16 * 4096, 4), "madvise")  # MADV_DONTNEED
        else:
            self.forget(page, 8)
            same("mmap", ok(libc.mmap(self.at + page * 4096, 8 * 4096, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | 0x10, -1, 0), "mmap"), self.at + page * 4096)

    def compare(self):
        for page in range(PAGES):
            value, inverse = struct.unpack_from("QQ", self.memory, page * 4096)
            if value != self.want[page] or inverse != (~value & (1 << 64) - 1 if value else 0):
                fail(f"pid {os.getpid()}: page {page} is {value:#x}, want {self.want[page]:#x}")
                return


def writer(seed):
    a = Area(seed)
    for _ in range(1000):
        a.change()
    write(f"writer{seed}", "")
    while not there("GO"):
        for _ in range(500):
            a.change()
    a.compare()


def parent(seed):
    """Has children that share its memory and change it."""
    a = Area(seed)

    def child():
        for _ in range(200):
            a.change()
        until(lambda: there("GO"), "GO", 10 * LIMIT)
        a.compare()

    children = [fork(child) for _ in range(2)]
    write(f"writer{seed}", "")
    while not there("GO"):
        pid = fork(a.change)
        for _ in range(500):
            a.change()
        join(pid)
    a.compare()
    for pid in children:
        join(pid)


def again(n):
    """Executes itself all the time."""
    if there("GO"):
        os._exit(0)
    block = bytearray(random.randbytes(4096) * 2048)
    write("writer3", "")
    time.sleep(0.05)
    same("block", block[:4096] * 2048, bytes(block))
    os.execv(sys.executable, [sys.executable, "-B", __file__, "again", str(n + 1)])


if sys.argv[1:2] == ["again"]:
    again(int(sys.argv[2]))

def test():
    children = [fork(lambda: writer(1)), fork(lambda: parent(2)), fork(lambda: again(0))]
    until(lambda: all(there(f"writer{i}") for i in (1, 2, 3)), "writers")
    wait()
    for pid in children:
        join(pid)


if sys.argv[1:2] == ["again"]:
    again(int(sys.argv[2]))
main(test)
