"""inotify: watches with their numbers and masks, of directories, files, links, deleted files; nothing but what happens is told."""
import fcntl
import struct

from kind import *

ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN, CREATE, DELETE = 1, 2, 4, 8, 0x10, 0x20, 0x100, 0x200
ALL, ONLYDIR, DONT_FOLLOW, EXCL_UNLINK, ISDIR, ONESHOT, IGNORED = 0xfff, 0x1000000, 0x2000000, 0x4000000, 0x40000000, 0x80000000, 0x8000


def watch(fd, what, mask):
    return ok(libc.inotify_add_watch(fd, what.encode(), ctypes.c_uint32(mask)), what)


def events(fd):
    found = []
    while waiting(fd):
        data = os.read(fd, 65536)
        while data:
            wd, mask, _, size = struct.unpack("iIII", data[:16])
            found.append((wd, mask, data[16:16 + size].rstrip(b"\0").decode()))
            data = data[16 + size:]
    return found


def waiting(fd):
    return struct.unpack("i", fcntl.ioctl(fd, 0x541b, bytes(4)))[0]  # FIONREAD


def watches(fd):
    with open(f"/proc/self/fdinfo/{fd}") as f:
        return {(line.split()[1], line.split()[4]) for line in f if line.startswith("inotify")}


def touch(name):
    with open(path(name), "w"):
        pass


def test():
    os.mkdir(path("dir"))
    for name in ("dir/file", "dir/linked", "gone", "once"):
        touch(name)
    os.symlink("file", path("dir/link"))
    fd = ok(libc.inotify_init1(os.O_NONBLOCK))
    unused = [watch(fd, path(name), OPEN) for name in ("gone", "once")]
    whole = watch(fd, path("dir"), ALL | ONLYDIR | EXCL_UNLINK)
    for wd in unused:
        ok(libc.inotify_rm_watch(fd, wd))
    same("numbers", (unused, whole), ([1, 2], 3))
    link = watch(fd, path("dir/link"), ATTRIB | DONT_FOLLOW)
    once = watch(fd, path("once"), ATTRIB | ONESHOT)
    gone = os.open(path("gone"), os.O_RDWR)
    deleted = watch(fd, path("gone"), CLOSE_WRITE | MODIFY)
    os.unlink(path("gone"))
    linked = watch(fd, path("dir/linked"), MODIFY)
    os.rename(path("dir/linked"), path("moved"))
    libraries = watch(fd, os.path.dirname(os.path.realpath("/lib/x86_64-linux-gnu/libc.so.6")), ALL)
    programs = watch(fd, os.path.dirname(os.path.realpath(sys.executable)), ALL)
    root = watch(fd, "/", CREATE)
    ptys = watch(fd, "/dev/pts", CREATE)
    proc = watch(fd, "/proc/sys/kernel", MODIFY)
    events(fd)
    empty = ok(libc.inotify_init1(0))
    second = ok(libc.inotify_init1(0))
    os.set_blocking(second, False)
    theirs = watch(second, path("dir"), CREATE)
    poll = select.epoll()
    poll.register(fd, select.EPOLLIN)
    before = watches(fd) | watches(second)

    def child():
        os.close(gone)
        go()
        until(lambda: there("dir/new"), "the parent's file")
        same("child: events", events(second), [(theirs, CREATE, "new")])
    pid = fork(child)
    wait()
    same("events of the snapshot", events(fd), [])
    same("epoll", poll.poll(0), [])
    same("watches", watches(fd) | watches(second), before)
    check(os.get_blocking(empty) and not os.get_blocking(fd), "flags")
    touch("dir/new")
    same("created", events(fd), [(whole, CREATE, "new"), (whole, OPEN, "new"), (whole, CLOSE_WRITE, "new")])
    os.chown(path("dir/link"), os.getuid(), os.getgid(), follow_symlinks=False)
    same("link", events(fd), [(whole, ATTRIB, "link"), (link, ATTRIB, "")])
    os.chmod(path("once"), 0o600)
    same("once", events(fd), [(once, ATTRIB, ""), (once, IGNORED, "")])
    os.write(gone, b"x")
    os.close(gone)
    same("deleted", events(fd), [(deleted, MODIFY, ""), (deleted, CLOSE_WRITE, ""), (deleted, IGNORED, "")])
    with open(path("moved"), "w") as f:
        f.write("x")
    same("moved", events(fd), [(linked, MODIFY, "")])
    os.mkdir("/watched")
    os.rmdir("/watched")
    same("root", events(fd), [(root, CREATE | ISDIR, "watched")])
    name = os.path.basename(os.ttyname(os.openpty()[1]))
    same("file system without handles", events(fd), [(ptys, CREATE, name)])
    same("next number", watch(fd, path("moved"), ATTRIB), linked)
    same("next number", watch(fd, path("READY"), ATTRIB), proc + 1)
    join(pid)
    same("numbers", (libraries, programs, root), (linked + 1, linked + 2, linked + 3))


main(test)
