"""What holds for memory that is yet to be mapped, and what the processor does for a thread: locks, seals, barriers, policies."""
from kind import *

PAGE = 4096
SYS_MINCORE, SYS_MLOCKALL, SYS_PRCTL, SYS_MEMBARRIER, SYS_MLOCK2, SYS_MSEAL = 27, 151, 157, 324, 325, 462
PR_GET_TSC, PR_SET_TSC, PR_MCE_KILL, PR_MCE_KILL_GET, PR_SET_MDWE, PR_GET_MDWE = 25, 26, 33, 34, 65, 66
MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT = 2, 4, 1
EPERM, EACCES = -1, -13


def area(pages, protection=PROT_READ | PROT_WRITE):
    address = libc.mmap(None, pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    return None if address == ctypes.c_void_p(-1).value else address


def property(address, name):
    """A line of smaps for the mapping of an address."""
    with open("/proc/self/smaps") as f:
        found = False
        for line in f:
            head, _, rest = line.partition(" ")
            if not head.endswith(":"):
                low, high = (int(x, 16) for x in head.split("-"))
                found = low <= address < high
            elif found and head == name + ":":
                return rest.split()


def locked(address):
    """Whether memory is locked, and how many kB of it are there."""
    return "lo" in property(address, "VmFlags"), int(property(address, "Rss")[0])


def prctl(*args):
    return call(SYS_PRCTL, *args, *[0] * (5 - len(args)))


def sealed():
    address = area(4)
    ctypes.memmove(address, b"sealed", 6)
    result = call(SYS_MSEAL, address, 4 * PAGE, 0)
    same("mseal", result if result != -38 else 0, 0)  # Linux 6.10

    def after():
        same("content", ctypes.string_at(address, 6), b"sealed")
        if result == 0:
            same("mprotect", libc.mprotect(address, PAGE, PROT_READ), -1)
            same("flag", "sl" in property(address, "VmFlags"), True)
    return after


def locks():
    whole, some = area(32), area(32)
    same("mlock", call(SYS_MLOCK2, whole, 32 * PAGE, 0), 0)
    same("mlock2", call(SYS_MLOCK2, some, 32 * PAGE, MLOCK_ONFAULT), 0)
    ctypes.memset(some, 1, 4 * PAGE)

    def after():
        same("locked", locked(whole), (True, 128))
        same("locked as it comes", locked(some), (True, 16))
        ctypes.memset(some, 2, 8 * PAGE)
        same("locked as it came", locked(some), (True, 32))
    return after


def future(flags):
    def body():
        same("mlockall", call(SYS_MLOCKALL, flags), 0)
        before = locked(area(16))

        def after():
            same("what is mapped before", before, (True, 0 if flags & MCL_ONFAULT else 64))
            area(1, PROT_NONE)
            same("what is mapped after", locked(area(16)), before)
        return after
    return body


def unlocked():
    return lambda: same("other memory", locked(area(16)), (False, 0))


def denied():
    """No memory that can be written and executed, and none that comes to be executable."""
    code = area(1, PROT_READ | PROT_EXEC)
    same("mdwe", prctl(PR_SET_MDWE, 1), 0)

    def after():
        same("mdwe", prctl(PR_GET_MDWE), 1)
        same("mmap", area(1, PROT_READ | PROT_WRITE | PROT_EXEC), None)
        same("mprotect", libc.mprotect(area(1), PAGE, PROT_READ | PROT_EXEC), -1)
        same("code", property(code, "VmFlags")[:2], ["rd", "ex"])
    return after


def barriers():
    same("register", call(SYS_MEMBARRIER, 1 << 4, 0), 0)  # REGISTER_PRIVATE_EXPEDITED

    def after():
        same("private expedited", call(SYS_MEMBARRIER, 1 << 3, 0), 0)
        same("another one", call(SYS_MEMBARRIER, 1 << 5, 0), EPERM)
    return after


def policies():
    """What is to be done about broken memory, which each thread says for itself."""
    early = threading.Event()
    found = []

    def body():
        same("machine checks", prctl(PR_MCE_KILL, 1, 1), 0)
        early.set()
        go()
        found.append(prctl(PR_MCE_KILL_GET))
    t = thread(body)
    early.wait()
    same("machine checks", prctl(PR_MCE_KILL, 1, 0), 0)

    def after():
        join_thread(t)
        same("machine checks", (prctl(PR_MCE_KILL_GET), found), (0, [1]))
    return after


def timeless():
    """One who must not read the time, which Python does all the time."""
    r, w = os.pipe()
    value, byte = ctypes.c_int(), ctypes.create_string_buffer(1)
    at = ctypes.addressof(value)

    def body():
        call(SYS_PRCTL, PR_SET_TSC, 2, 0, 0, 0)
        libc.read(r, byte, 1)
        call(SYS_PRCTL, PR_GET_TSC, at, 0, 0, 0)
        call(SYS_PRCTL, PR_SET_TSC, 1, 0, 0, 0)
        return value.value
    pid = fork(body)
    asleep(pid)

    def after():
        os.write(w, b"x")
        join(pid, 2 << 8)
    return after


def test():
    bodies = [sealed, locks, future(MCL_FUTURE), future(MCL_FUTURE | MCL_ONFAULT), unlocked, denied, barriers, policies, timeless]

    def child(number, body):
        after = body()
        write(f"set{number}", "")
        go()
        after()
    pids = [fork(lambda: child(*numbered)) for numbered in enumerate(bodies)]
    for number in range(len(bodies)):
        until(lambda: there(f"set{number}"), f"number {number}")
    wait()
    for pid in pids:
        join(pid)


main(test)
