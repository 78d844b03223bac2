"""Memory that processes share by files: of POSIX shared memory, memfds with seals, regular files, deleted ones."""
import fcntl
import mmap

from kind import *

PAGE = 4096
RW = mmap.PROT_READ | mmap.PROT_WRITE
ADD_SEALS, GET_SEALS = 1033, 1034
SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE = 1, 2, 4, 8, 16
libc.sem_open.restype = ctypes.c_void_p
libc.sem_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_uint]
for name in "sem_post", "sem_wait", "sem_close":
    getattr(libc, name).argtypes = [ctypes.c_void_p]


def made(name, pages=4):
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    os.truncate(fd, pages * PAGE)
    for i in range(pages):
        os.pwrite(fd, b"page %d of %s" % (i, os.path.basename(name).encode()), i * PAGE)
    return fd


def memfd(name, seals, pages=4):
    fd = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.truncate(fd, pages * PAGE)
    os.pwrite(fd, name.encode(), 0)
    if seals & WRITE:
        fcntl.fcntl(fd, ADD_SEALS, seals)
        return fd, mmap.mmap(fd, pages * PAGE, mmap.MAP_SHARED, mmap.PROT_READ)
    area = mmap.mmap(fd, pages * PAGE, mmap.MAP_SHARED, RW)
    fcntl.fcntl(fd, ADD_SEALS, seals)
    return fd, area


def test():
    areas, files = {}, {}
    for name in "/dev/shm/named", "/dev/shm/gone", path("regular"), path("deleted"), path("held"):
        fd = made(name)
        areas[name] = mmap.mmap(fd, 4 * PAGE, mmap.MAP_SHARED, RW)
        files[name] = fd
    part = mmap.mmap(files[path("regular")], PAGE, mmap.MAP_SHARED, RW, offset=2 * PAGE)
    readonly = os.open(path("regular"), os.O_RDONLY)
    seen = mmap.mmap(readonly, 4 * PAGE, mmap.MAP_SHARED, mmap.PROT_READ)
    copy = mmap.mmap(files["/dev/shm/gone"], 4 * PAGE, mmap.MAP_PRIVATE, RW)
    copy[PAGE:PAGE + 4] = b"mine"
    for name in "/dev/shm/gone", path("deleted"), path("held"):
        os.unlink(name)
    for name in "/dev/shm/named", "/dev/shm/gone", path("deleted"):
        os.close(files.pop(name))
    os.close(readonly)
    sealed = {"plain": memfd("plain", 0), "size": memfd("size", SHRINK | GROW), "future": memfd("future", FUTURE_WRITE | SHRINK),
              "all": memfd("all", SEAL | SHRINK | GROW | WRITE)}
    anonymous = os.memfd_create("no seals", 0)
    semaphore = libc.sem_open(b"/kind", os.O_CREAT, 0o600, 0)
    check(semaphore, "sem_open")
    flags = {name: maps(area) for name, area in areas.items()}

    def child():
        again = os.open("/dev/shm/named", os.O_RDWR)
        named = mmap.mmap(again, 4 * PAGE, mmap.MAP_SHARED, RW)
        os.close(again)
        write("child", "")
        until(lambda: areas["/dev/shm/gone"][0:4] == b"ping", "ping")
        same("child: named", named[0:4], b"ping")
        for name, area in areas.items():
            same("child: " + name, area[0:4], b"ping")
            area[PAGE:PAGE + 4] = b"pong"
        for name, (fd, area) in sealed.items():
            if name != "all":
                same("child: memfd " + name, area[0:4], b"ping")
                area[PAGE:PAGE + 4] = b"pong"
        libc.sem_wait(semaphore)
        copy[0:4] = b"not "
    pid = fork(child)
    until(lambda: there("child"), "child")
    asleep(pid)

    wait()

    same("flags of mappings", {name: maps(area) for name, area in areas.items()}, flags)
    for name, area in areas.items():
        base = os.path.basename(name).encode()
        for i in range(4):
            want = b"page %d of %s" % (i, base)
            same(f"{name}, page {i}", area[i * PAGE:i * PAGE + len(want)], want)
        if name != "/dev/shm/gone":
            area[0:4] = b"ping"
    for name, (fd, area) in sealed.items():
        same("name", os.readlink(f"/proc/self/fd/{fd}"), f"/memfd:{name} (deleted)")
        same("content of " + name, (area[:len(name)], os.pread(fd, len(name), 0)), (name.encode(), name.encode()))
        if name != "all":
            area[0:4] = b"ping"
            same("shared with its descriptor", os.pread(fd, 4, 0), b"ping")
    same("seals", {n: fcntl.fcntl(fd, GET_SEALS) for n, (fd, _) in sealed.items()},
         {"plain": 0, "size": SHRINK | GROW, "future": FUTURE_WRITE | SHRINK, "all": SEAL | SHRINK | GROW | WRITE})
    same("seals of one that takes none", fcntl.fcntl(anonymous, GET_SEALS), SEAL)
    for name in "future", "all":
        try:
            os.pwrite(sealed[name][0], b"x", 0)
            fail("a write to the sealed memfd " + name)
        except PermissionError:
            pass
    for name in "size", "all":
        try:
            os.truncate(sealed[name][0], PAGE)
            fail("the sealed memfd shrinks: " + name)
        except PermissionError:
            pass
    areas["/dev/shm/gone"][0:4] = b"ping"
    libc.sem_post(semaphore)
    join(pid)
    for name, area in areas.items():
        same(name + ", from the child", area[PAGE:PAGE + 4], b"pong")
    for name, (_, area) in sealed.items():
        if name != "all":
            same(name + ", from the child", area[PAGE:PAGE + 4], b"pong")
    with open("/dev/shm/named", "rb") as f:
        same("by its name", f.read(4), b"ping")
    with open(path("regular"), "rb") as f:
        same("file", f.read(PAGE + 4)[PAGE:], b"pong")
    same("one that is read only", seen[PAGE:PAGE + 4], b"pong")
    try:
        ok(libc.mprotect(address(seen), PAGE, RW))
        fail("a mapping of a file that is open for reading only becomes writable")
    except PermissionError:
        pass
    part[0:4] = b"part"
    same("part", areas[path("regular")][2 * PAGE:2 * PAGE + 4], b"part")
    same("private copy", (copy[PAGE:PAGE + 4], copy[2 * PAGE:2 * PAGE + 4]), (b"mine", b"page"))
    os.pwrite(files[path("held")], b"seen", 3 * PAGE)
    same("through a descriptor", areas[path("held")][3 * PAGE:3 * PAGE + 4], b"seen")
    check(not there("deleted") and not there("held") and not os.path.exists("/dev/shm/gone"), "what was deleted is back")
    os.unlink("/dev/shm/named")
    os.unlink("/dev/shm/sem.kind")


def address(area):
    """Where a mapping lies, by a buffer that the kernel is shown."""
    view = ctypes.py_object(area)
    buf = (ctypes.c_ssize_t * 10)()
    ok(ctypes.pythonapi.PyObject_GetBuffer(view, buf, 0))
    at = ctypes.cast(buf, ctypes.POINTER(ctypes.c_void_p))[0]
    ctypes.pythonapi.PyBuffer_Release(buf)
    return at


def maps(area):
    at = address(area)
    with open("/proc/self/smaps") as f:
        found = None
        for line in f:
            head = line.split()
            if "-" in head[0] and not head[0].endswith(":"):
                low, high = (int(x, 16) for x in head[0].split("-"))
                found = head[1:3] + head[5:] if low <= at < high else None
            elif found and head[0] == "VmFlags:":
                return found + sorted(head[1:])


main(test)
