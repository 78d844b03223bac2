"""The break grows and shrinks after as before."""
from kind import *

libc.sbrk.restype = ctypes.c_void_p
libc.sbrk.argtypes = [ctypes.c_long]
SIZE = 1 << 20


def test():
    libc.mallopt(-2, 32 << 20)  # M_TOP_PAD: malloc takes enough beforehand to leave the break alone from now on
    libc.malloc(100 << 10), libc.malloc(100 << 10), libc.malloc(100 << 10)
    start = libc.sbrk(SIZE)
    ctypes.memset(start, 0x5A, SIZE)
    end = libc.sbrk(0)
    with open("/proc/self/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    def heap():
        with open("/proc/self/maps") as f:
            return [line for line in f if "[heap]" in line]
    names = len(heap())

    wait()

    same("break", libc.sbrk(0), end)
    same("content", ctypes.string_at(start, SIZE), b"\x5A" * SIZE)
    more = libc.sbrk(4 * SIZE)
    same("growth", more, end)
    ctypes.memset(more, 0xA5, 4 * SIZE)
    same("grown", ctypes.string_at(more, 4 * SIZE), b"\xA5" * 4 * SIZE)
    same("content below", ctypes.string_at(start, SIZE), b"\x5A" * SIZE)
    libc.sbrk(-4 * SIZE)
    same("break, shrunk", libc.sbrk(0), end)
    same("mappings named heap", len(heap()), names)
    with open("/proc/self/stat") as f:
        after = f.read().rpartition(")")[2].split()
    for i in (23, 24, 25, 42, 43, 44, 45, 46, 47, 48):  # proc_pid_stat(5): startcode ... env_end
        same(f"stat field {i + 3}", after[i], fields[i])


main(test)
