"""Memory of which a part cannot be read any more: who touches that gets SIGBUS, a system call EFAULT, and nobody zeros. lost BYTES."""
from kind import *

PAGE = 4096
EFAULT = 14


def test():
    size = int(sys.argv[1])
    address = libc.mmap(None, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    for i in range(0, size, PAGE):
        ctypes.memmove(address + i, b"%016d" % i * (PAGE // 16), PAGE)
    write("AREA", str(address))
    null = os.open("/dev/null", os.O_WRONLY)
    r, w = os.pipe()

    def touch(i):
        return ctypes.string_at(address + i, 16) == b"%016d" % i

    def good():
        for i in list(range(0, size // 4, PAGE)) + list(range(3 * size // 4, size, PAGE)):
            if not touch(i):
                return fail(f"{i:#x} differs")

    def bad():
        for i in range(size // 4, 3 * size // 4, PAGE):
            if not touch(i):
                return fail(f"{i:#x} differs")
        fail("nothing is lost")

    def kernel():
        lost = 0
        for i in range(size // 4, 3 * size // 4, PAGE):
            n = libc.write(w, ctypes.c_void_p(address + i), ctypes.c_size_t(16))
            if n == -1:
                same("errno", ctypes.get_errno(), EFAULT)
                lost += 1
            else:
                same("what was written", os.read(r, 100), b"%016d" % i)
        check(lost > 0, "no system call failed")

    wait()
    join(fork(good))
    join(fork(kernel))
    join(fork(bad), signal.SIGBUS)
    good()
    kernel()


main(test)
