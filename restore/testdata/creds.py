"""Credentials: users, groups, every set of capabilities, securebits, no_new_privs; of processes and of one thread."""
from kind import *

KEYS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask")
PR_KEEPCAPS, PR_CAPBSET_DROP, PR_SECUREBITS, PR_GETSECUREBITS, PR_NO_NEW_PRIVS, PR_AMBIENT = 8, 24, 28, 27, 38, 47
CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_BIND, CAP_SYS_TIME = 0, 5, 6, 7, 10, 25
SYS_CAPSET, SYS_SETRESUID, SYS_GETTID = 126, 117, 186


def capset(effective, permitted, inheritable):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = [sum(1 << c for c in s) for s in (effective, permitted, inheritable)]
    data = (ctypes.c_uint32 * 6)(*[s & 0xFFFFFFFF for s in sets], *[s >> 32 for s in sets])
    same("capset", call(SYS_CAPSET, ctypes.byref(header), ctypes.byref(data)), 0)


def prctl(*args):
    return call(157, *args, *[0] * (5 - len(args)))


def user():
    os.setgroups([1000, 5, 100])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    return lambda: denied("secret")


def denied(name):
    try:
        os.close(os.open(path(name), os.O_RDONLY))
        fail(f"pid {os.getpid()} may open {name}")
    except PermissionError:
        pass


def mixed():
    os.setgroups([])
    os.setresgid(1, 2, 3)
    os.setresuid(1, 2, 0)

    def after():
        os.setresuid(-1, 0, -1)
        same("back to root", os.geteuid(), 0)
    return after


def keeper():
    prctl(PR_KEEPCAPS, 1)
    os.setresuid(1001, 1001, 1001)
    capset({CAP_CHOWN, CAP_KILL}, {CAP_CHOWN, CAP_KILL, CAP_NET_BIND}, {CAP_CHOWN, CAP_NET_BIND})
    same("ambient", prctl(PR_AMBIENT, 2, CAP_CHOWN), 0)
    return lambda: os.chown(path("owned"), 7, 7)


def bounded():
    for cap in (CAP_SYS_TIME, CAP_NET_BIND):
        prctl(PR_CAPBSET_DROP, cap)
    capset({CAP_SETUID}, {CAP_SETUID, CAP_SETGID}, set())

    def after():
        denied("others")
    return after


def secure():
    want = 0b101111  # NOROOT, LOCKED, NO_SETUID_FIXUP, LOCKED, NO_CAP_AMBIENT_RAISE without its lock
    same("set securebits", prctl(PR_SECUREBITS, want), 0)

    def after():
        same("securebits", prctl(PR_GETSECUREBITS), want)
        os.setresuid(1002, 1002, 1002)
        check(int(status("CapEff")["CapEff"], 16) != 0, "no capabilities left")
    return after


def plain():
    same("no new privileges", prctl(PR_NO_NEW_PRIVS, 1), 0)
    return lambda: None


def fsuid():
    libc.setfsgid(77)
    libc.setfsuid(66)

    def after():
        os.close(os.open(path("open/by-fsuid"), os.O_CREAT | os.O_WRONLY, 0o600))
        s = os.stat(path("open/by-fsuid"))
        same("owner of a new file", (s.st_uid, s.st_gid), (66, 77))
    return after


def threaded():
    """A thread with credentials of its own, as no library makes them but the kernel allows."""
    started = threading.Event()

    def other():
        call(SYS_SETRESUID, 1003, 1003, 1003)
        tid = call(SYS_GETTID)
        want = status(*KEYS, pid=f"self/task/{tid}")
        started.set()
        until(lambda: there("GO"), "GO")
        same("thread's", status(*KEYS, pid=f"self/task/{tid}"), want)
        denied("secret")
    t = thread(other)
    started.wait()

    def after():
        join_thread(t)
        same("the process's", os.getresuid(), (0, 0, 0))
    return after


def test():
    os.chmod(DIR, 0o777)
    for name, mode in (("secret", 0o600), ("owned", 0o644), ("others", 0o600)):
        with open(path(name), "w"):
            pass
        os.chmod(path(name), mode)
    os.chown(path("others"), 3, 3)
    os.mkdir(path("open"))
    os.chmod(path("open"), 0o777)

    def child(change):
        def body():
            after = change()
            want = status(*KEYS)
            with open(path("set-" + change.__name__), "w"):
                pass
            go()
            same(change.__name__, status(*KEYS), want)
            after()
        return body

    changes = user, mixed, keeper, bounded, secure, plain, fsuid, threaded
    children = [fork(child(change)) for change in changes]
    for change in changes:
        until(lambda: there("set-" + change.__name__), change.__name__)
    wait()
    for pid in children:
        join(pid)
    s = os.stat(path("owned"))
    same("changed owner", (s.st_uid, s.st_gid), (7, 7))


main(test)
