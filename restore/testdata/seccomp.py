"""seccomp filters: chains, of processes and of a thread, and one that allows little."""
import struct

from kind import *

SYS_SECCOMP, SYS_UNAME, SYS_SYSINFO, SYS_TIMES, SYS_GETTID = 317, 63, 99, 100, 186
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


class fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def deny(number, errno, flags=0):
    """Install a filter that answers one call with an error."""
    program = b"".join(struct.pack("HBBI", *i) for i in (
        (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, ERRNO | errno), (0x06, 0, 0, ALLOW)))
    same("seccomp", call(SYS_SECCOMP, 1, flags, ctypes.byref(fprog(4, program))), 0)


def answers():
    buffer = ctypes.create_string_buffer(4096)
    return [call(n, buffer) for n in (SYS_UNAME, SYS_SYSINFO)] + [min(call(SYS_TIMES, 0), 0)]


def test():
    libc.prctl(38, 1, 0, 0, 0)
    deny(SYS_UNAME, 71)

    def stricter():
        deny(SYS_SYSINFO, 72, 2)  # SECCOMP_FILTER_FLAG_LOG
        deny(SYS_TIMES, 73)
        deny(SYS_UNAME, 74)  # among errors of several filters the newest counts
        started = threading.Event()
        results = []

        def other():
            deny(SYS_TIMES, 75)
            started.set()
            go()
            results.append(answers())
            results.append(status("Seccomp", "Seccomp_filters", pid=f"self/task/{call(SYS_GETTID)}"))
        before = status("Seccomp", "Seccomp_filters")
        t = thread(other)
        started.wait()
        open(path("stricter"), "w").close()
        go()
        join_thread(t)
        same("child", answers(), [-74, -72, -73])
        same("child's status", status("Seccomp", "Seccomp_filters"), before)
        same("thread", results[0], [-74, -72, -75])
        same("thread's filters", int(results[1]["Seccomp_filters"]), int(before["Seccomp_filters"]) + 1)

    def narrow():
        """A filter without restart_syscall(2) and most else, in a sleep."""
        program = [(0x20, 0, 0, 0)]
        allowed = (35, 230, 3, 231, 60, 257, 262, 21, 5, 9, 10, 11, 12, 13, 14, 15, 202, 0, 1, 4, 6, 8, 16, 24, 39, 110, 228)
        program += [(0x15, len(allowed) - i, 0, n) for i, n in enumerate(allowed)]
        program += [(0x06, 0, 0, 0x80000000), (0x06, 0, 0, ALLOW)]
        raw = b"".join(struct.pack("HBBI", *i) for i in program)
        same("seccomp", call(SYS_SECCOMP, 1, 0, ctypes.byref(fprog(len(program), raw))), 0)
        while not os.access(path("GO"), os.F_OK):
            time.sleep(0.3)

    parent = status("Seccomp", "Seccomp_filters")
    children = [fork(stricter), fork(narrow)]
    until(lambda: there("stricter"), "child")
    time.sleep(0.1)
    wait()
    same("parent", answers(), [-71, 0, 0])
    same("parent's status", status("Seccomp", "Seccomp_filters"), parent)
    for pid in children:
        join(pid)


main(test)
