"""Private memory: all protections, patterns, holes, flags."""
from kind import *

PAGE = 4096
MADV_DONTFORK, MADV_DONTDUMP, MADV_WIPEONFORK, MADV_NOHUGEPAGE = 10, 16, 18, 15


def area(pages, prot=PROT_READ | PROT_WRITE, flags=0):
    address = libc.mmap(None, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0)
    check(address != ctypes.c_void_p(-1).value, "mmap")
    return address


def fill(address, pages, seed):
    for i in range(pages):
        ctypes.memmove(address + i * PAGE, (b"%08d%08d" % (seed, i)) * (PAGE // 16), PAGE)


def holds(what, address, pages, seed):
    for i in range(pages):
        if ctypes.string_at(address + i * PAGE, PAGE) != (b"%08d%08d" % (seed, i)) * (PAGE // 16):
            return fail(f"{what}: page {i} differs")


def maps(address):
    """Range, protection and flags of the mapping of an address."""
    with open("/proc/self/smaps") as f:
        found = None
        for line in f:
            head = line.split()
            if "-" in head[0] and not head[0].endswith(":"):
                low, high = (int(x, 16) for x in head[0].split("-"))
                found = (low, high, head[1]) if low <= address < high else None
            elif found and head[0] == "VmFlags:":
                # gu: there may be guard regions, which neighbours have from each other when they become one
                return found + (" ".join(sorted(set(head[1:]) - {"gu"})),)


def test():
    big = area(64 * 256)
    fill(big, 64 * 256, 1)
    none = area(16)
    fill(none, 16, 2)
    ok(libc.mprotect(none, 16 * PAGE, PROT_NONE))
    only = area(16)
    fill(only, 16, 3)
    ok(libc.mprotect(only, 16 * PAGE, PROT_READ))
    empty = area(1024, PROT_NONE, MAP_NORESERVE)
    reserved = area(1 << 28, PROT_NONE)  # 1 TiB: more than there is memory, so that it could not be writable
    sparse = area(1024)
    for i in range(0, 1024, 97):
        ctypes.memmove(sparse + i * PAGE, b"sparse%d" % i, 8)
    zeros = area(64)
    ctypes.memset(zeros, 0, 64 * PAGE)
    code = area(1, PROT_READ | PROT_WRITE | PROT_EXEC)
    ctypes.memmove(code, b"\xb8\x2a\x00\x00\x00\xc3", 6)  # mov eax, 42; ret
    ok(libc.mprotect(code, PAGE, PROT_READ | PROT_EXEC))
    writeonly = area(4)
    fill(writeonly, 4, 4)
    ok(libc.mprotect(writeonly, 4 * PAGE, PROT_WRITE))
    flagged = []
    for advice in MADV_DONTFORK, MADV_DONTDUMP, MADV_WIPEONFORK, MADV_NOHUGEPAGE:
        a = area(8)
        area(1, PROT_NONE)
        fill(a, 8, 10 + advice)
        ok(libc.madvise(a, 8 * PAGE, advice))
        flagged.append((a, 10 + advice))
    dropped = area(16)
    fill(dropped, 16, 5)
    ok(libc.madvise(dropped + 4 * PAGE, 4 * PAGE, 4))  # MADV_DONTNEED
    guarded = area(16)
    fill(guarded, 16, 6)
    guards = libc.madvise(guarded + 3 * PAGE, 2 * PAGE, 102) == 0  # MADV_GUARD_INSTALL, Linux 6.13; one that can be seen, 6.15
    addresses = [big, none, only, empty, reserved, sparse, zeros, code, writeonly, dropped] + [a for a, _ in flagged]
    before = [maps(a) for a in addresses]

    wait()

    if guards:
        r, w = os.pipe()
        for page in range(16):
            got = libc.write(w, ctypes.c_void_p(guarded + page * PAGE), 1)
            same(f"bytes of page {page} beside guards", got, -1 if page in (3, 4) else 1)
        os.close(r), os.close(w)
    for a, want in zip(addresses, before):
        same(f"mapping of {a:#x}", maps(a), want)
    holds("64 MiB", big, 64 * 256, 1)
    ok(libc.mprotect(none, 16 * PAGE, PROT_READ | PROT_WRITE))
    holds("PROT_NONE", none, 16, 2)
    holds("read-only", only, 16, 3)
    ok(libc.mprotect(only, 16 * PAGE, PROT_READ | PROT_WRITE))
    fill(only, 16, 33)
    holds("read-only, written", only, 16, 33)
    for i in range(1024):
        want = (b"sparse%d\0\0\0\0" % i)[:8] if i % 97 == 0 else bytes(8)
        same(f"sparse page {i}", ctypes.string_at(sparse + i * PAGE, 8), want)
    same("zeros", ctypes.string_at(zeros, 64 * PAGE), bytes(64 * PAGE))
    same("code", ctypes.CFUNCTYPE(ctypes.c_int)(code)(), 42)
    ok(libc.mprotect(writeonly, 4 * PAGE, PROT_READ))
    holds("write-only", writeonly, 4, 4)
    for a, seed in flagged:
        holds("flagged", a, 8, seed)
    same("dropped", ctypes.string_at(dropped + 4 * PAGE, 4 * PAGE), bytes(4 * PAGE))
    holds("beside dropped", dropped, 4, 5)
    ok(libc.mprotect(empty, 1024 * PAGE, PROT_READ | PROT_WRITE))
    fill(empty, 1024, 7)
    holds("reserve", empty, 1024, 7)
    fill(big, 64 * 256, 8)
    ok(libc.madvise(big, PAGE, 4))
    same("given back", ctypes.string_at(big, PAGE), bytes(PAGE))


main(test)
