"""What is deleted while somebody stands in it, has it open, or knows it by another name."""
from kind import *


def link(fd):
    return os.readlink(f"/proc/self/fd/{fd}")


def inode(what):
    s = os.stat(what)
    return s.st_dev, s.st_ino


def made(name, text=b""):
    with open(path(name), "wb") as f:
        f.write(text)
    return path(name)


def test():
    for name in ("dir", "dir/deep", "away", "tree", "tree/a", "tree/a/b", "list", "here", "here/below"):
        os.mkdir(path(name))
    # directories
    os.chmod(path("dir/deep"), 0o1751)
    os.chown(path("dir/deep"), 5, 6)
    deep = os.open(path("dir/deep"), os.O_RDONLY)
    deep_path = os.open(path("dir/deep"), os.O_PATH)
    by_link = os.open(f"/proc/self/fd/{deep}", os.O_RDONLY)
    lost = os.open(path("tree/a"), os.O_RDONLY), os.open(path("tree/a/b"), os.O_RDONLY)
    # files
    first = os.open(made("dir/first", b"one inode"), os.O_RDWR)
    os.link(path("dir/first"), path("away/second"))
    os.lseek(first, 4, os.SEEK_SET)
    beside = os.open(made("dir/beside", b"another"), os.O_RDONLY)
    os.link(path("dir/beside"), path("dir/stays"))
    orphan = os.open(made("tree/a/orphan", b"an orphan"), os.O_RDWR)
    orphan_path = os.open(path("tree/a/orphan"), os.O_PATH)
    linked = os.open(made("tree/a/linked", b"in a tree that is gone"), os.O_RDONLY)
    os.link(path("tree/a/linked"), path("away/linked"))
    fifo = path("tree/fifo")
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDWR)
    os.write(pipe, b"in the FIFO")
    covered = os.open(made("here/covered", b"below"), os.O_RDONLY)
    for name in ("dir/first", "dir/beside", "tree/a/orphan", "tree/a/linked", "tree/fifo"):
        os.unlink(path(name))
    os.rmdir(path("dir/deep"))
    for name in ("tree/a/b", "tree/a", "tree"):
        os.rmdir(path(name))
    os.rename(path("here"), path("there"))
    # below a mount
    os.mkdir(path("over"))
    below = os.open(made("over/file", b"below a mount"), os.O_RDONLY)
    below_path = os.open(path("over"), os.O_PATH)
    os.mkfifo(path("over/fifo"))
    below_pipe = os.open(path("over/fifo"), os.O_RDWR)
    os.write(below_pipe, b"in the FIFO below")
    ok(libc.mount(b"none", path("over").encode(), b"tmpfs", 0, None), "mount")
    # a directory being read, by the kernel's own pieces
    for i in range(1000):
        made(f"list/{i:04}-" + "x" * 60)
    listed = os.open(path("list"), os.O_RDONLY)
    names = entries(listed, 20000)
    end = os.open(path("list"), os.O_RDONLY)
    while entries(end, 65536):
        pass
    position = os.lseek(end, 0, os.SEEK_CUR)

    def stander():
        os.mkdir(path("ground"))
        os.chdir(path("ground"))
        os.rmdir(path("ground"))
        where, own = os.readlink("/proc/self/cwd"), os.open(".", os.O_RDONLY)
        write("standing", "")
        go()
        same("stander: directory", os.readlink("/proc/self/cwd"), where)
        same("stander: inode", inode("."), inode(own))
        same("stander: links", os.stat(".").st_nlink, 0)
        try:
            os.open("new", os.O_CREAT | os.O_RDWR)
            fail("stander: a file in a deleted directory")
        except FileNotFoundError:
            pass
    pid = fork(stander)
    until(lambda: there("standing"), "standing")
    every = (deep, deep_path, by_link, *lost, first, beside, orphan, orphan_path, linked, below, below_path, below_pipe, pipe, covered)
    links = [link(fd) for fd in every]
    attributes = [(s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_mtime_ns) for s in map(os.fstat, every[:-3])]
    before = sorted(os.listdir(DIR)), sorted(os.listdir(path("dir"))), sorted(os.listdir(path("away")))
    wait()
    same("links", [link(fd) for fd in every], links)
    same("attributes", [(s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_mtime_ns) for s in map(os.fstat, every[:-3])],
         attributes)
    now = sorted(set(os.listdir(DIR)) - {"GO", "READY"}), sorted(os.listdir(path("dir"))), sorted(os.listdir(path("away")))
    same("names", now, before)
    check(inode(deep) == inode(deep_path) == inode(by_link), "one directory")
    same("deleted directory", entries(deep, 100), [])
    same("first", (inode(first), os.read(first, 10)), (inode(path("away/second")), b"inode"))
    same("beside", (inode(beside), os.read(beside, 10)), (inode(path("dir/stays")), b"another"))
    same("linked", (inode(linked), os.read(linked, 99)), (inode(path("away/linked")), b"in a tree that is gone"))
    same("orphan", (inode(orphan), os.read(orphan, 99)), (inode(orphan_path), b"an orphan"))
    same("FIFO", os.read(pipe, 99), b"in the FIFO")
    same("below", (os.read(below, 99), os.read(below_pipe, 99)), (b"below a mount", b"in the FIFO below"))
    same("above", os.listdir(path("over")), [])
    ok(libc.umount(path("over").encode()), "umount")
    same("uncovered", (inode(below), inode(below_path)), (inode(path("over/file")), inode(path("over"))))
    same("renamed", (link(covered), os.read(covered, 9)), (path("there/covered"), b"below"))
    more = []
    while got := entries(listed, 20000):
        more += got
    same("list", sorted(names + more), sorted(os.listdir(path("list")) + [".", ".."]))
    check(names and more, "list in two pieces")
    same("end of the list", (os.lseek(end, 0, os.SEEK_CUR), entries(end, 1000)), (position, []))
    join(pid)


def entries(fd, size):
    """Names that one getdents64(2) gives."""
    buf = ctypes.create_string_buffer(size)
    got = call(217, fd, buf, size)
    names, at = [], 0
    while at < got:
        length = int.from_bytes(buf.raw[at + 16:at + 18], "little")
        names.append(buf.raw[at + 19:at + length].split(b"\0")[0].decode())
        at += length
    return names


main(test)
