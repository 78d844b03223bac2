"""Processes that have pages in common, each with a protection of its own."""
from kind import *

PAGE = 4096
SIZE = 32 * PAGE


def protections():
    with open("/proc/self/maps") as f:
        return {tuple(line.split()[:2]) for line in f}


def test():
    # Of which process the others inherit the pages, a restore chooses: so each protection is some child's.
    common = libc.mmap(None, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memset(common, 1, SIZE)

    def child(number, protection):
        ok(libc.mprotect(common, SIZE, protection), "mprotect")
        before = protections()
        write(f"protected{number}", "")
        go()
        same(f"protections of child {number}", protections() - before, set())

    each = PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC, PROT_NONE
    pids = [fork(lambda: child(*numbered)) for numbered in enumerate(each)]
    for number in range(len(each)):
        until(lambda: there(f"protected{number}"), "mprotect")
    before = protections()
    wait()
    same("protections", protections() - before, set())
    for pid in pids:
        join(pid)


main(test)
