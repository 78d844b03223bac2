"""Mounts of parts of file systems that are mounted already: over each other, read-only, and how they pass on what is mounted in them."""
from kind import *

RDONLY, NOSUID, REMOUNT, BIND, MOVE, REC = 1, 2, 32, 4096, 8192, 16384
UNBINDABLE, PRIVATE, SLAVE, SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20


def mount(source, where, kind=None, flags=0, options=None):
    ok(libc.mount(source and source.encode(), where.encode(), kind, flags, options), "mount " + where)


def bind(source, where):
    mount(source, where, flags=BIND)


def change(where, flags):
    mount(None, where, flags=flags)


def put(name, text=""):
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, "w") as f:
        f.write(text)


def read(name):
    with open(name) as f:
        return f.read()


def table():
    """The mounts of ours, with peer groups numbered anew: root, mount point, attributes, propagation, kind, source."""
    numbers, lines = {}, []
    with open("/proc/self/mountinfo") as f:
        for line in f:
            before, after = line.rstrip("\n").split(" - ")
            fields = before.split()
            if DIR not in fields[4]:
                continue
            groups = []
            for field in fields[6:]:
                name, _, number = field.partition(":")
                groups.append((name, numbers.setdefault(number, len(numbers))))
            lines.append((fields[3].replace(".vps", ""), fields[4], fields[5], groups, after.split()[:2]))
    return sorted(lines, key=lambda line: line[:3])


def test():
    for name in ("source", "target", "fs", "peer", "slave", "alone", "deep", "proc", "over", "chain"):
        os.makedirs(path(name))
    put(path("source/sub/file"), "in the source")
    put(path("one"), "one file")
    put(path("other"), "another")
    bind(path("source"), path("target"))
    change(path("target"), BIND | REMOUNT | RDONLY | NOSUID)
    bind(path("one"), path("other"))

    mount("a source", path("fs"), b"tmpfs", 0, b"size=1m")
    change(path("fs"), PRIVATE)
    put(path("fs/dir/file"), "in the file system")
    change(path("fs"), SHARED)
    bind(path("fs"), path("peer"))
    bind(path("fs"), path("slave"))
    change(path("slave"), SLAVE)
    change(path("slave"), SHARED)
    bind(path("slave"), path("chain"))
    change(path("chain"), SLAVE)
    bind(path("fs/dir"), path("alone"))
    change(path("alone"), UNBINDABLE)
    os.mkdir(path("fs/in"))
    mount("propagated", path("fs/in"), b"tmpfs")
    put(path("peer/in/file"), "in what was propagated")

    put(path("over/below"), "below")
    put(path("deep/a/b/file"), "deep")
    bind(path("deep"), path("over"))
    change(path("over"), PRIVATE)
    bind(path("source"), path("deep/a"))
    bind(path("source/sub"), path("over"))
    change(path("over"), PRIVATE)
    mount("proc", path("proc"), b"proc", 14)
    bind("/proc/sys/kernel", path("over"))
    for name in ("vanished", "vanished-file"):
        put(path(name + "/x"), "deleted")
    put(path("shown-file"))
    bind(path("vanished-file/x"), path("shown-file"))
    os.mkdir(path("shown"))
    os.unlink(path("vanished/x"))
    os.chmod(path("vanished"), 0o750)
    bind(path("vanished"), path("shown"))
    os.rmdir(path("vanished"))
    os.unlink(path("vanished-file/x"))
    put(path("vanished-file/x"), "another one")
    change("/dev/mqueue", BIND | REMOUNT | RDONLY)
    put("/dev/shm/below", "below the manager's")
    mount("over", "/dev/shm", b"tmpfs")
    put("/dev/shm/above", "above")
    keep = os.open(path("target/sub/file"), os.O_RDONLY)
    before = table()
    wait()
    same("mounts", table(), before)
    same("open file", os.read(keep, 100), b"in the source")
    os.close(keep)
    same("bound file", read(path("other")), "one file")
    try:
        put(path("target/new"))
        fail("a read-only mount can be written to")
    except OSError:
        pass
    put(path("source/new"), "new")
    same("through the mount", read(path("target/new")), "new")
    for name in ("fs", "peer", "slave", "chain"):
        same(name, (read(path(name + "/dir/file")), read(path(name + "/in/file"))), ("in the file system", "in what was propagated"))
    same("alone", os.listdir(path("alone")), ["file"])
    same("the kernel's", read(path("over/ostype")), "Linux\n")
    check(read(path("proc/self/comm")), "own proc")
    same("deleted file", (read(path("shown-file")), read(path("vanished-file/x"))), ("deleted", "another one"))
    same("deleted directory", (os.listdir(path("shown")), oct(os.stat(path("shown")).st_mode), there("vanished")), ([], oct(0o40750), False))
    same("read-only", os.statvfs("/dev/mqueue").f_flag & os.ST_RDONLY, os.ST_RDONLY)
    same("above", (os.listdir("/dev/shm"), read("/dev/shm/above")), (["above"], "above"))
    ok(libc.umount(b"/dev/shm"))
    same("below", (os.listdir("/dev/shm"), read("/dev/shm/below")), (["below"], "below the manager's"))
    ok(libc.umount(path("over").encode()))
    same("below it", read(path("over/file")), "in the source")
    ok(libc.umount(path("over").encode()))
    same("below that", read(path("over/a/b/file")), "deep")
    ok(libc.umount(path("over").encode()))
    same("below all", read(path("over/below")), "below")

    os.mkdir(path("peer/late"))
    mount("late", path("peer/late"), b"tmpfs")
    put(path("peer/late/file"), "late")
    same("propagated", [read(path(name + "/late/file")) for name in ("fs", "slave", "chain")], ["late"] * 3)
    os.mkdir(path("chain/private"))
    mount("private", path("chain/private"), b"tmpfs")
    put(path("chain/private/file"))
    same("not propagated", [os.listdir(path(name + "/private")) for name in ("fs", "peer", "slave")], [[]] * 3)
    ok(libc.umount(path("fs/in").encode()))
    same("gone everywhere", [os.listdir(path(name + "/in")) for name in ("peer", "slave", "chain")], [[]] * 3)
    check(libc.mount(path("alone").encode(), path("target").encode(), None, BIND, None) == -1, "an unbindable mount was bound")
    for line in reversed(table()):
        libc.umount2(line[1].encode(), 2)


main(test)
