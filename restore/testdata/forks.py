"""A large process with many children, each of which has all of its memory: forks BYTES CHILDREN."""
from kind import *

PAGE = 4096


def test():
    size, children = (int(n) for n in (sys.argv[1] or "4194304 3").split())
    common = libc.mmap(None, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    text = b"".join(b"%016d" % i * (PAGE // 16) for i in range(1024))
    for at in range(0, size, len(text)):
        ctypes.memmove(common + at, text, min(len(text), size - at))
    del text

    def child():
        go()
        for i in range(os.getpid() % 16 * PAGE, size, 16 * PAGE):
            if ctypes.string_at(common + i, 16) != b"%016d" % (i // PAGE % 1024):
                return fail(f"{i:#x} differs")
        ctypes.memmove(common, b"mine", 4)

    pids = [fork(child) for _ in range(children)]
    wait()
    for pid in pids:
        join(pid)
    same("parent's first page", ctypes.string_at(common, 16), b"%016d" % 0)


main(test)
