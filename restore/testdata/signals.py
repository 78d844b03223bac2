"""Signal actions, masks, and pending signals with their values, of the process and of a thread."""
from kind import *

libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
RT = signal.SIGRTMIN + 2
SYS_RT_SIGACTION, SYS_RT_SIGTIMEDWAIT, SYS_TGKILL = 13, 128, 234


def actions():
    """All struct kernel_sigaction."""
    buffer = ctypes.create_string_buffer(32)
    table = {}
    for number in range(1, 65):
        same(f"sigaction {number}", call(SYS_RT_SIGACTION, number, 0, ctypes.byref(buffer), 8), 0)
        table[number] = buffer.raw
    return table


def take(number):
    """The next pending signal: number, si_code, si_pid, si_value."""
    info = (ctypes.c_int * 32)()
    mask = ctypes.c_ulong(1 << (number - 1))
    got = call(SYS_RT_SIGTIMEDWAIT, ctypes.byref(mask), ctypes.byref(info), ctypes.byref(timespec(0, 0)), 8)
    return (got, info[2], info[4], info[6] & 0xFFFFFFFF | info[7] << 32) if got > 0 else got


def test():
    caught = []
    signal.signal(signal.SIGUSR2, lambda *_: caught.append("usr2"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGWINCH, lambda *_: caught.append("winch"))
    signal.siginterrupt(signal.SIGWINCH, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(RT + 5, lambda *_: caught.append("rt"))
    blocked = {signal.SIGUSR1, signal.SIGCHLD, signal.SIGTRAP, RT, RT + 1, RT + 5}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    me = os.getpid()
    os.kill(me, signal.SIGUSR1)
    os.kill(me, signal.SIGUSR1)
    for value in (11, 1 << 40, 33, 7):
        libc.sigqueue(me, RT, value)
    libc.sigqueue(me, RT + 1, 99)
    libc.sigqueue(me, RT + 5, 5)
    child = os.fork()
    if child == 0:
        os._exit(7)
    until(lambda: state(child) == "Z", "zombie")
    tids, found = [], []
    mine = blocked | {signal.SIGUSR2, signal.SIGTERM}

    def other():
        signal.pthread_sigmask(signal.SIG_SETMASK, mine)
        tids.append(threading.get_native_id())
        go()
        same("mask of the other thread", signal.pthread_sigmask(signal.SIG_BLOCK, []), mine)
        found.append(take(signal.SIGTERM))
        found.append(take(signal.SIGTERM))

    t = thread(other)
    until(lambda: tids, "thread")
    call(SYS_TGKILL, me, tids[0], signal.SIGTERM)
    before = actions()
    lines = status("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")

    wait()

    after = status("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
    same("status", after, lines)
    same("actions", actions(), before)
    join_thread(t)
    same("of the thread", [f if f == -11 else f[:2] for f in found], [(signal.SIGTERM, -6), -11])  # SI_TKILL, EAGAIN
    same("blocked", signal.pthread_sigmask(signal.SIG_BLOCK, []), blocked)
    same("pending", signal.sigpending(), blocked - {signal.SIGTRAP})
    same("SIGUSR1", take(signal.SIGUSR1)[:3], (signal.SIGUSR1, 0, me))  # SI_USER
    same("SIGUSR1 twice", take(signal.SIGUSR1), -11)
    same("queue", [take(RT) for _ in range(5)],
         [(RT, -1, me, v) for v in (11, 1 << 40, 33, 7)] + [-11])  # SI_QUEUE
    same("queue of the next", take(RT + 1)[3], 99)
    info = take(signal.SIGCHLD)
    same("SIGCHLD", info[:2], (signal.SIGCHLD, 1))  # CLD_EXITED
    join(child, 7 << 8)
    check(not caught, f"handlers ran: {caught}")
    os.kill(me, signal.SIGHUP)
    os.kill(me, signal.SIGUSR2)
    os.kill(me, signal.SIGWINCH)
    until(lambda: len(caught) == 2, "handlers", 5)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {RT + 5})
    until(lambda: len(caught) == 3, "handler of the pending signal", 5)
    same("caught", sorted(caught), ["rt", "usr2", "winch"])


main(test)
