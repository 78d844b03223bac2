"""Memory file systems that the instance has mounted: files in them, under others that are mounted within, names of one file."""
import struct

from kind import *


def mount(where, options=b"", flags=0, name=b"none", kind=b"tmpfs"):
    ok(libc.mount(name, where.encode(), kind, flags, options), "mount " + where)


def put(name, text, mode=0o644):
    with open(name, "w") as f:
        f.write(text)
    os.chmod(name, mode)


def tree(top):
    """Everything below, as it can be seen."""
    found = {}
    for dir, dirs, files in os.walk(top):
        for name in dirs + files:
            full = os.path.join(dir, name)
            st = os.lstat(full)
            text = os.readlink(full) if os.path.islink(full) else hash(open(full).read().strip("\0")) if os.path.isfile(full) else None
            more = {} if os.path.islink(full) else {name: os.getxattr(full, name) for name in os.listxattr(full)}
            found[full[len(top):]] = (oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, int(st.st_mtime), more, text)
    return found


def mounts():
    with open("/proc/self/mounts") as f:
        return [line for line in f if DIR in line or "/dev/shm/" in line]


def test():
    top = path("top")
    os.mkdir(top)
    mount(top, b"size=1m,mode=751,uid=3,gid=4", name=b"a name")
    put(top + "/file", "in the top")
    os.setxattr(top + "/file", "user.kind", b"any\0")
    os.chmod(top + "/file", 0o755)
    os.setxattr(top + "/file", "security.capability", struct.pack("5I", 0x02000001, 1 << 10, 0, 0, 0))  # CAP_NET_BIND_SERVICE
    acl = [(1, 7, 0xffffffff), (2, 4, 1000), (4, 5, 0xffffffff), (8, 6, 1001), (16, 7, 0xffffffff), (32, 0, 0xffffffff)]
    os.setxattr(top + "/file", "system.posix_acl_access", struct.pack("I", 2) + b"".join(struct.pack("HHI", *e) for e in acl))
    os.link(top + "/file", top + "/another name")
    os.symlink("file", top + "/link")
    os.mkdir(top + "/covered")
    put(top + "/covered/file", "under the cover", 0o600)
    os.chown(top + "/covered/file", 7, 8)
    os.makedirs(top + "/covered/deep/er")
    put(top + "/covered/deep/er/file", "deep under the cover")
    mount(top + "/covered", b"mode=700")
    put(top + "/covered/file", "in the middle")
    os.mkdir(top + "/covered/deep")
    put(top + "/covered/deep/file", "in the middle, under another cover")
    mount(top + "/covered/deep", b"", 1)  # MS_RDONLY
    os.mkdir("/dev/shm/dir")
    put("/dev/shm/dir/file", "in the manager's, under a cover")
    mount("/dev/shm/dir")
    put("/dev/shm/dir/file", "over it")
    for text in (b"lowest", b"in between", b"highest"):
        mount(path("stack"), name=text) if there("stack") else os.mkdir(path("stack")) or mount(path("stack"), name=text)
        put(path("stack/file"), text.decode())
        os.mkdir(path("stack/in"))
        mount(path("stack/in"))
        put(path("stack/in/file"), "in " + text.decode())
    os.mkdir("/dev/shm/secret")
    mount("/dev/shm/secret", b"mode=700", kind=b"ramfs")  # as systemd gives credentials to services
    put("/dev/shm/secret/key", "secret", 0o400)
    ok(libc.mount(b"", b"/dev/shm/secret", None, 1 | 32 | 4096, None))  # MS_RDONLY, MS_REMOUNT, MS_BIND
    big = open(top + "/big", "w+b")
    big.truncate(200000)
    big.seek(150000)
    big.write(b"x" * 100)
    big.flush()
    before = tree(top), tree("/dev/shm"), mounts()
    same("attributes", sorted(before[0]["/file"][5]), ["security.capability", "system.posix_acl_access", "user.kind"])

    wait()

    same("files", tree(top), before[0])
    same("files of the manager's", tree("/dev/shm"), before[1])
    same("mounts", mounts(), before[2])
    try:
        put(top + "/covered/deep/new", "")
        fail("a read-only mount can be written")
    except OSError:
        pass
    for text in ("highest", "in between", "lowest"):
        same("stack", [open(path(name)).read() for name in ("stack/in/file", "stack/file")], ["in " + text, text])
        ok(libc.umount(path("stack/in").encode()))
        ok(libc.umount(path("stack").encode()))
    ok(libc.umount(b"/dev/shm/dir"))
    same("under the manager's cover", open("/dev/shm/dir/file").read(), "in the manager's, under a cover")
    ok(libc.umount((top + "/covered/deep").encode()))
    same("in the middle", tree(top + "/covered")["/deep/file"][-1], hash("in the middle, under another cover"))
    ok(libc.umount((top + "/covered").encode()))
    under = tree(top + "/covered")
    same("under the cover", {k: v[-1] for k, v in under.items()},
         {"/file": hash("under the cover"), "/deep": None, "/deep/er": None, "/deep/er/file": hash("deep under the cover")})
    same("owner under the cover", under["/file"][:3], (oct(0o100600), 7, 8))
    same("size of big", os.stat(top + "/big").st_blocks * 512 < 20000, True)
    big.close()
    ok(libc.umount(top.encode()))
    same("what lies below all", os.listdir(top), [])


main(test)
