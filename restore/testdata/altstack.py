"""Alternate signal stacks: one in use, one to be used later."""
from kind import *


class stack_t(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


class sigaction_t(ctypes.Structure):
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p)]


SIZE, SA_ONSTACK, SS_ONSTACK = 1 << 20, 0x08000000, 1
handler_t = ctypes.CFUNCTYPE(None, ctypes.c_int)
getter = None


def current():
    s = stack_t()
    ok(libc.sigaltstack(None, ctypes.byref(s)))
    return s.sp, s.flags, s.size


def pointer():
    """The stack pointer, by a few bytes of machine code."""
    global getter
    if getter is None:
        page = libc.mmap(None, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        ctypes.memmove(page, b"\x48\x89\xe0\xc3", 4)  # mov rax, rsp; ret
        getter = ctypes.CFUNCTYPE(ctypes.c_ulong)(page)
    return getter()


def test():
    pointer()
    seen = []
    inside = threading.Event()

    @handler_t
    def handler(number):
        sp, flags, size = current()
        seen.append((number, sp <= pointer() < sp + size, flags))
        if number == signal.SIGUSR1:
            inside.set()
            go()
            seen.append(("after", sp <= pointer() < sp + size, current()[1]))

    for number in signal.SIGUSR1, signal.SIGUSR2:
        action = sigaction_t(ctypes.cast(handler, ctypes.c_void_p), flags=SA_ONSTACK)
        ok(libc.sigaction(number, ctypes.byref(action), None))

    def enter(number):
        base = libc.mmap(None, SIZE, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        ok(libc.sigaltstack(ctypes.byref(stack_t(base, 0, SIZE)), None))
        want = current()
        if number == signal.SIGUSR2:
            go()
            same("set", current(), want)
        libc.pthread_kill(ctypes.c_ulong(threading.get_ident()), number)
        same("afterwards", current(), want)

    threads = [thread(enter, n) for n in (signal.SIGUSR1, signal.SIGUSR2)]
    inside.wait()
    wait()
    for t in threads:
        join_thread(t)
    same("handlers", sorted(map(str, seen)), sorted(map(str, [(signal.SIGUSR1.value, True, SS_ONSTACK),
         ("after", True, SS_ONSTACK), (signal.SIGUSR2.value, True, SS_ONSTACK)])))


main(test)
