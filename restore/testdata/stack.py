"""A deep stack, of the first thread and of another, and one that goes on growing."""
from kind import *

sys.setrecursionlimit(100000)
threading.stack_size(64 << 20)
callback = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)


def dive(depth, bottom):
    """Recurse through C, so that the machine's stack grows."""
    @callback
    def down(n):
        if n == depth:
            bottom()
            return 1
        mine = n * 7
        result = down(n + 1)
        return result + (1 if mine == n * 7 else -1000)
    same(f"way back from {depth}", down(0), depth + 1)


def size():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmStk"))


def test():
    down = threading.Event()
    def other():
        down.set()
        go()
    t = thread(dive, 1200, other)
    down.wait()
    depth = []
    def first():
        depth.append(size())
        wait()
    dive(1200, first)
    join_thread(t)
    dive(2500, lambda: depth.append(size()))
    check(depth[1] > depth[0] > 400, f"stack of {depth} kB")


main(test)
