"""Mappings of files: private with modified pages, shared, of a deleted file, beyond the end."""
import mmap

from kind import *

PAGE = 4096


def make(name, pages):
    with open(path(name), "wb") as f:
        for i in range(pages):
            f.write(b"%016d" % i * (PAGE // 16))
    return os.open(path(name), os.O_RDWR)


def page(i):
    return b"%016d" % i * (PAGE // 16)


def test():
    fd = make("data", 64)
    private = mmap.mmap(fd, 64 * PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    for i in (3, 9, 63):
        private[i * PAGE:i * PAGE + 5] = b"mine!"
    shared = mmap.mmap(fd, 32 * PAGE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=8 * PAGE)
    shared[0:6] = b"shared"
    readonly = mmap.mmap(fd, 64 * PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    gone = make("gone", 16)
    held = mmap.mmap(gone, 16 * PAGE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    copy = mmap.mmap(gone, 16 * PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    copy[PAGE:PAGE + 4] = b"copy"
    os.unlink(path("gone"))
    os.close(gone)
    os.close(fd)
    held[0:4] = b"held"

    wait()

    for i in range(64):
        want = page(i)
        if i == 8:
            want = b"shared" + want[6:]
        same(f"read-only page {i}", readonly[i * PAGE:(i + 1) * PAGE], want)
        if i in (3, 9, 63):
            want = b"mine!" + page(i)[5:]
        same(f"private page {i}", private[i * PAGE:(i + 1) * PAGE], want)
    same("deleted", held[0:20], b"held" + page(0)[4:20])
    same("deleted, last page", held[15 * PAGE:], page(15))
    same("copy of deleted", copy[PAGE:PAGE + 20], b"copy" + page(1)[4:20])
    held[2 * PAGE:2 * PAGE + 4] = b"seen"
    same("through the other mapping", copy[2 * PAGE:2 * PAGE + 4], b"seen")
    shared[PAGE:PAGE + 5] = b"after"
    shared.flush()
    with open(path("data"), "rb") as f:
        data = f.read()
    same("file", data[8 * PAGE:8 * PAGE + 6], b"shared")
    same("file, written after", data[9 * PAGE:9 * PAGE + 5], b"after")
    same("file, privately written", data[3 * PAGE:3 * PAGE + 5], page(3)[:5])


main(test)
