"""Processes that have pages in common by copy-on-write: with a parent, with brothers only, from one who is dead."""
from kind import *

PAGE = 4096
PAGES = 2048
CHILDREN = 12
MADV_DONTNEED = 4


def area(pages, prot=PROT_READ | PROT_WRITE):
    address = libc.mmap(None, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    check(address != ctypes.c_void_p(-1).value, "mmap")
    return address


def page(seed, i):
    return (b"%08d%08d" % (seed, i)) * (PAGE // 16)


class Area:
    """Memory, and what should be in it."""

    def __init__(self, pages):
        self.address, self.seeds = area(pages), [None] * pages

    def write(self, seed, start, end):
        for i in range(start, end):
            ctypes.memmove(self.address + i * PAGE, page(seed, i), PAGE)
            self.seeds[i] = seed

    def drop(self, start, end):
        ok(libc.madvise(self.address + start * PAGE, (end - start) * PAGE, MADV_DONTNEED))
        self.seeds[start:end] = [None] * (end - start)

    def unmap(self, start, end):
        ok(libc.munmap(ctypes.c_void_p(self.address + start * PAGE), ctypes.c_size_t((end - start) * PAGE)))
        self.seeds[start:end] = ["gone"] * (end - start)

    def verify(self, who):
        for i, seed in enumerate(self.seeds):
            if seed == "gone":
                continue
            want = bytes(PAGE) if seed is None else page(seed, i)
            if ctypes.string_at(self.address + i * PAGE, PAGE) != want:
                return fail(f"{who}: page {i} differs")


def test():
    common, touched = Area(PAGES), Area(64)
    common.write(1, 0, PAGES - 100)

    def leave(who, *areas):
        write(who, "here")
        go()
        for a in areas:
            a.verify(who)
            a.write(99, 0, 1)  # nobody else sees that
        write(who + "-done", "done")

    def child(n):
        def body():
            common.write(100 + n, 10 * n, 10 * n + 3)
            common.drop(300 + n, 310 + n)
            if n % 3 == 1:
                common.unmap(500, 600)
            if n % 3 == 2:
                ok(libc.mprotect(common.address + 700 * PAGE, 50 * PAGE, PROT_READ))
            touched.write(n, n, n + 2)
            own = Area(40)
            own.write(200 + n, 0, 30)
            if n == 5:  # has children in turn, who know pages of its
                own.write(7, 0, 40)
                for k in range(3):
                    fork(lambda: own.write(8, k, k + 1) or leave(f"grandchild{k}", common, own, touched))
            leave(f"child{n}", common, own, touched)
        return body

    def template():
        """Its children have pages in common that nobody else has any more."""
        own = Area(PAGES)
        own.write(3, 0, PAGES)
        common.write(4, 1000, 1500)
        for k in range(3):
            fork(lambda: own.write(5, k, k + 1) or leave(f"orphan{k}", common, own))

    names = [f"child{n}" for n in range(CHILDREN)] + [f"grandchild{k}" for k in range(3)] + [f"orphan{k}" for k in range(3)]
    children = [fork(child(n)) for n in range(CHILDREN)]
    join(fork(template))
    common.write(2, 1600, 1800)  # now only the children have what was there
    for name in names:
        until(lambda: there(name), name)

    wait()

    for name in names:
        until(lambda: there(name + "-done"), name + " is done")
    for pid in children:
        join(pid)
    common.verify("parent")


main(test)
