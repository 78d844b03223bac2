"""Memory that changes its place at once when the program goes on, while it may not all be there yet: moves BYTES."""
from kind import *
import random

PAGE = 4096
MADV_DONTNEED, MADV_WIPEONFORK = 4, 18
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2

libc.mremap.restype = ctypes.c_void_p
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def page(n):
    return b"%016d" % n * (PAGE // 16)


def area(size, at=None, flags=0):
    address = libc.mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0)
    check(address != ctypes.c_void_p(-1).value, "mmap")
    return address


def holds(what, address, first, pages, step=1):
    """Looks at the beginning of pages; first None: zeros."""
    for i in range(0, pages, step):
        want = bytes(16) if first is None else b"%016d" % (first + i)
        got = ctypes.string_at(address + i * PAGE, 16)
        if got != want:
            return fail(f"{what}: page {i} begins with {got!r}, not {want!r}")


def test():
    size = int(sys.argv[1] or 64 << 20)
    part = size // 16
    pages = part // PAGE
    gap = 1 << 20
    parts = []
    for n in range(16):
        address = area(part + gap)
        ok(libc.munmap(address + part, gap))
        for i in range(pages):
            ctypes.memmove(address + i * PAGE, page(n * pages + i), PAGE)
        parts.append(address)
    wiped = area(part + gap)
    ok(libc.munmap(wiped + part, gap))
    for i in range(pages):
        ctypes.memmove(wiped + i * PAGE, page(i), PAGE)
    ok(libc.madvise(wiped, part, MADV_WIPEONFORK))
    order = list(range(pages))
    random.Random(1).shuffle(order)
    first = [n * pages for n in range(16)]
    r, w = os.pipe()

    wait()

    # Kernel reads and writes.
    check(libc.write(w, ctypes.c_void_p(parts[15] + 7 * PAGE), ctypes.c_size_t(PAGE)) == PAGE, "write")
    same("what was written", os.read(r, PAGE), page(first[15] + 7))
    os.write(w, b"x" * 100)
    check(libc.read(r, ctypes.c_void_p(parts[15] + 9 * PAGE + 16), ctypes.c_size_t(100)) == 100, "read")
    same("what was read", ctypes.string_at(parts[15] + 9 * PAGE, 200), page(first[15] + 9)[:16] + b"x" * 100 + page(first[15] + 9)[116:200])

    # Dropped, at once and after a look.
    ok(libc.madvise(parts[14], part // 2, MADV_DONTNEED))
    holds("dropped", parts[14], None, pages // 2)
    holds("beside", parts[14] + part // 2, first[14] + pages // 2, pages // 2, 7)
    ok(libc.madvise(parts[14] + part // 2, part // 4, MADV_DONTNEED))
    holds("dropped later", parts[14] + part // 2, None, pages // 4)

    # Moved, and what was there.
    moved = libc.mremap(parts[13], part, part, MREMAP_MAYMOVE | MREMAP_FIXED, parts[13] - (1 << 36))
    same("moved to", moved, parts[13] - (1 << 36))
    holds("moved", moved, first[13], pages)
    again = area(part, parts[13], 0x100000)  # MAP_FIXED_NOREPLACE
    holds("in its place", again, None, pages)

    # Shrunk and grown again.
    same("shrunk", libc.mremap(parts[12], part, part // 2, 0, None), parts[12])
    same("grown", libc.mremap(parts[12], part // 2, part, 0, None), parts[12])
    holds("first half", parts[12], first[12], pages // 2)
    holds("second half", parts[12] + part // 2, None, pages // 2)

    # Unmapped and mapped.
    ok(libc.munmap(parts[11] + PAGE * 10, PAGE * 10))
    area(PAGE * 10, parts[11] + PAGE * 10, 0x100000)
    holds("before the hole", parts[11], first[11], 10)
    holds("the hole", parts[11] + PAGE * 10, None, 10)
    holds("behind the hole", parts[11] + PAGE * 20, first[11] + 20, pages - 20, 3)

    # Protected, in pieces.
    for i in range(0, 64, 2):
        ok(libc.mprotect(parts[10] + i * PAGE, PAGE, PROT_READ))
    holds("protected", parts[10], first[10], pages)

    # A child has what its parent has, and each its own.
    def child():
        holds("child", parts[9], first[9], pages)
        holds("wiped", wiped, None, pages)
        ok(libc.madvise(parts[8], part, MADV_DONTNEED))
        holds("child's dropped", parts[8], None, pages)
        for i in order[:50]:
            ctypes.memmove(parts[7] + i * PAGE, b"child", 5)

        def grandchild():
            holds("grandchild", parts[6], first[6], pages)
            holds("grandchild's dropped", parts[8], None, pages)
            for i in order[:50]:
                same("grandchild's page", ctypes.string_at(parts[7] + i * PAGE, 16), b"child" + (b"%016d" % (first[7] + i))[5:])

        join(fork(grandchild))

    children = [fork(child) for _ in range(3)]
    holds("not wiped", wiped, 0, pages)
    holds("not the parent's", parts[8], first[8], pages)
    holds("nor this", parts[7], first[7], pages)
    for pid in children:
        join(pid)

    # Everybody at once.
    def random_touch(n):
        for i in order:
            if ctypes.string_at(parts[n] + i * PAGE, 16) != b"%016d" % (first[n] + i):
                return fail(f"thread {n}: page {i}")

    threads = [thread(random_touch, n) for n in range(6)]
    for t in threads:
        join_thread(t)
    for n in range(6):
        holds(f"part {n}", parts[n], first[n], pages)


main(test)
