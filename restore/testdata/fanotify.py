"""fanotify: groups of an unprivileged user with their marks; nothing but what happens is told."""
import struct

from kind import *

INIT, MARK = 300, 301
REPORT_FID, REPORT_DFID_NAME, NONBLOCK = 0x200, 0xC00, 2
ADD, IGNORE_SURV = 1, 0x440
ATTRIB, MODIFY, CLOSE_WRITE, CREATE, DELETE, ONDIR, ON_CHILD = 4, 2, 8, 0x100, 0x200, 0x40000000, 0x8000000


def mark(fd, flags, mask, name):
    same("fanotify_mark " + name, call(MARK, fd, flags, mask, -100, ctypes.c_char_p(path(name).encode())), 0)


def events(fd):
    """Masks and names."""
    found = []
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return found
    while data:
        size, _, _, _, mask, _, _ = struct.unpack_from("IBBHQii", data)
        info, rest = data[24:size], b""
        if info and info[0] in (1, 2, 3):  # FAN_EVENT_INFO_TYPE_FID, DFID_NAME, DFID
            handle = struct.unpack_from("I", info, 12)[0]
            rest = info[20 + handle:struct.unpack_from("H", info, 2)[0]] if info[0] == 2 else b""
        found.append((mask, rest.rstrip(b"\0").decode()))
        data = data[size:]
    return found


def marks(fd):
    with open(f"/proc/self/fdinfo/{fd}") as f:
        return sorted(" ".join(w for w in line.split() if not w.startswith(("ino", "f_handle"))) for line in f if line.startswith("fanotify"))


def touch(name):
    with open(path(name), "w") as f:
        f.write("x")


def test():
    os.mkdir(path("dir"))
    touch("dir/file")
    touch("other")
    names, files = call(INIT, REPORT_DFID_NAME | NONBLOCK, 0), call(INIT, REPORT_FID | NONBLOCK, os.O_RDONLY)
    check(names > 0 and files > 0, f"fanotify_init: {names} {files}")
    mark(names, ADD, CREATE | DELETE | ONDIR | ON_CHILD, "dir")
    mark(files, ADD, MODIFY | ATTRIB, "other")
    mark(files, ADD | IGNORE_SURV, ATTRIB, "other")
    before = marks(names), marks(files)
    wait()
    same("events of the snapshot", (events(names), events(files)), ([], []))
    same("marks", (marks(names), marks(files)), before)
    touch("dir/new")
    os.unlink(path("dir/new"))
    os.mkdir(path("dir/below"))
    same("names", events(names), [(CREATE | DELETE, "new"), (CREATE | ONDIR, "below")])
    os.chmod(path("other"), 0o600)
    same("ignored", events(files), [])
    touch("other")
    same("modified", [mask for mask, _ in events(files)], [MODIFY])


main(test)
