"""Files: offsets, flags, sharing by dup(2) and fork(2), deleted ones, directories, devices, locks."""
import fcntl

from kind import *

OFD_SETLK, OFD_GETLK = 37, 36


class flock(ctypes.Structure):
    _fields_ = [("type", ctypes.c_short), ("whence", ctypes.c_short), ("start", ctypes.c_long), ("len", ctypes.c_long),
                ("pid", ctypes.c_int)]


def offset(fd):
    return os.lseek(fd, 0, os.SEEK_CUR)


def flags(fd):
    """Flags of the description and of the descriptor. A deleted file may come back as one that never had a name."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_TMPFILE, fcntl.fcntl(fd, fcntl.F_GETFD)


def entries():
    table = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            table[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass
    return {fd: "deleted" if link.endswith("(deleted)") else link for fd, link in table.items() if not link.endswith("/fd")}


def test():
    with open(path("text"), "w") as f:
        f.write("0123456789" * 100)
    read = os.open(path("text"), os.O_RDONLY)
    os.lseek(read, 17, os.SEEK_SET)
    append = os.open(path("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK)
    os.write(append, b"one\n")
    both = os.open(path("text"), os.O_RDWR | os.O_SYNC)
    os.lseek(both, 500, os.SEEK_SET)
    dup = os.dup(read)
    high = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, 700)
    os.set_inheritable(append, True)
    where = os.open(path("text"), os.O_PATH)
    directory = os.open(DIR, os.O_RDONLY | os.O_DIRECTORY)
    null, zero = os.open("/dev/null", os.O_RDWR), os.open("/dev/zero", os.O_RDONLY)
    uptime = os.open("/proc/uptime", os.O_RDONLY)
    gone = os.open(path("gone"), os.O_RDWR | os.O_CREAT)
    os.write(gone, b"deleted content" * 10000)
    os.lseek(gone, 8, os.SEEK_SET)
    gone_too = os.open(path("gone"), os.O_RDONLY)
    os.unlink(path("gone"))
    again = os.open(path("gone"), os.O_RDWR | os.O_CREAT)
    os.write(again, b"a new one")
    empty = os.open(path("empty"), os.O_RDWR | os.O_CREAT)
    os.unlink(path("empty"))
    os.mkdir(path("sub"))
    unnamed = os.open(path("sub"), os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(unnamed, b"unnamed")
    os.link(path("text"), path("second"))
    linked = os.open(path("second"), os.O_RDONLY)
    os.unlink(path("second"))
    os.symlink("text", path("link"))
    via = os.open(path("link"), os.O_RDONLY)
    link = os.open(path("link"), os.O_PATH | os.O_NOFOLLOW)
    locked = os.open(path("text"), os.O_RDWR)
    fcntl.flock(locked, fcntl.LOCK_EX)
    record = os.open(path("record"), os.O_RDWR | os.O_CREAT)
    fcntl.lockf(record, fcntl.LOCK_EX, 10, 100)
    owned = os.open(path("log"), os.O_RDWR)
    same("OFD lock", call(72, owned, OFD_SETLK, ctypes.byref(flock(1, 0, 3, 4, 0))), 0)

    shared = os.open(path("text"), os.O_RDONLY)
    os.lseek(shared, 40, os.SEEK_SET)

    def child():
        go()
        until(lambda: there("GO-CHILD"), "GO-CHILD")
        same("child: shared offset", offset(shared), 45)
        os.lseek(shared, 60, os.SEEK_SET)
        try:
            fcntl.lockf(record, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 105)
            fail("child: the parent's lock is not there")
        except (BlockingIOError, PermissionError):
            pass
        other = os.open(path("text"), os.O_RDWR)
        try:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fail("child: the parent's flock is not there")
        except BlockingIOError:
            pass
        fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        got = flock(1, 0, 0, 0, 0)
        call(72, os.open(path("log"), os.O_RDWR), OFD_GETLK, ctypes.byref(got))
        same("child: OFD lock", (got.type, got.start, got.len, got.pid), (1, 3, 4, -1))
    pid = fork(child)
    every = (read, append, both, dup, high, where, directory, null, zero, uptime, gone, gone_too, again, empty, unnamed, linked,
             via, link, locked, shared)
    before = {fd: flags(fd) for fd in every}
    names = entries()
    stats = {fd: os.fstat(fd).st_mode for fd in every}

    wait()

    same("table", entries(), names)
    for fd in every:
        same(f"flags of {names[fd]}", flags(fd), before[fd])
        same(f"mode of {names[fd]}", oct(os.fstat(fd).st_mode), oct(stats[fd]))
    same("offset", offset(read), 17)
    os.read(read, 3)
    same("offset by dup", (offset(dup), offset(high)), (20, 20))
    same("content", os.read(read, 10), b"0123456789")
    os.write(append, b"two\n")
    os.lseek(append, 0, os.SEEK_SET)
    os.write(append, b"three\n")
    with open(path("log")) as f:
        same("log", f.read(), "one\ntwo\nthree\n")
    same("offset of the other", offset(both), 500)
    os.write(both, b"changed")
    with open(path("text")) as f:
        same("text", f.read()[498:510], "89changed7" + "89")
    same("deleted", (offset(gone), os.read(gone, 15)), (8, b"contentdeleted "))
    same("deleted, by the other description", (offset(gone_too), os.read(gone_too, 15)), (0, b"deleted content"))
    os.pwrite(gone, b"DELETED", 0)
    same("deleted, written", os.pread(gone_too, 15, 0), b"DELETED content")
    same("deleted size", os.fstat(gone).st_size, 150000)
    same("deleted links", os.fstat(gone).st_nlink, 0)
    same("of its old name", os.pread(again, 20, 0), b"a new one")
    same("name exists once", os.path.getsize(path("gone")), 9)
    same("empty", os.fstat(empty).st_size, 0)
    same("unnamed", os.pread(unnamed, 10, 0), b"unnamed")
    same("linked", os.read(linked, 5), b"01234")
    same("linked inode", os.fstat(linked).st_ino, os.stat(path("text")).st_ino)
    same("through a link", os.read(via, 5), b"01234")
    check("text" in os.listdir(directory), "directory")
    same("zero", os.read(zero, 4), bytes(4))
    os.write(null, b"x")
    check(os.read(uptime, 100).count(b".") == 2, "a file of /proc")
    os.read(shared, 5)
    write("GO-CHILD", "go\n")
    join(pid)
    same("shared offset", offset(shared), 60)


main(test)
