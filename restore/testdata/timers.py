"""Interval and POSIX timers: what is left of them, their intervals, values and targets."""
from kind import *


class sigevent(ctypes.Structure):
    _fields_ = [("value", ctypes.c_long), ("signo", ctypes.c_int), ("notify", ctypes.c_int), ("tid", ctypes.c_int), ("pad", ctypes.c_char * 44)]


class itimerspec(ctypes.Structure):
    _fields_ = [("interval", timespec), ("value", timespec)]


SYS_CREATE, SYS_SETTIME, SYS_GETTIME, SYS_OVERRUN, SYS_DELETE = 222, 223, 224, 225, 226
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD_ID, ABSTIME = 0, 1, 4, 1
RT = signal.SIGRTMIN + 1


def create(clock, notify, signo=0, value=0, tid=0):
    number = ctypes.c_int()
    same("timer_create", call(SYS_CREATE, clock, ctypes.byref(sigevent(value, signo, notify, tid)), ctypes.byref(number)), 0)
    return number.value


def settime(timer, value, interval=0.0, flags=0):
    spec = itimerspec(*[timespec(int(x), int(x % 1 * 1e9)) for x in (interval, value)])
    same("timer_settime", call(SYS_SETTIME, timer, flags, ctypes.byref(spec), 0), 0)


def gettime(timer):
    spec = itimerspec()
    same("timer_gettime", call(SYS_GETTIME, timer, ctypes.byref(spec)), 0)
    return tuple(round(t.sec + t.nsec / 1e9, 3) for t in (spec.interval, spec.value))


def take(number, limit):
    """The si_value and tid of the next such signal."""
    info = (ctypes.c_int * 32)()
    mask = ctypes.c_ulong(1 << (number - 1))
    end, got = time.monotonic() + limit, -4
    while got == -4:  # the interval timers' signals interrupt it
        left = max(0, end - time.monotonic())
        got = call(128, ctypes.byref(mask), ctypes.byref(info), ctypes.byref(timespec(int(left), int(left % 1 * 1e9))), 8)
    return (info[2], info[6]) if got > 0 else got


def test():
    alarms = []
    signal.signal(signal.SIGALRM, lambda *_: alarms.append(time.monotonic()))
    signal.signal(signal.SIGVTALRM, lambda *_: None)
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {RT, RT + 1, RT + 2, RT + 3, RT + 4})
    deleted = create(1, SIGEV_NONE)
    start = time.monotonic()
    long = create(1, SIGEV_NONE)
    settime(long, 1000, 7.5)
    until_ = create(1, SIGEV_NONE)
    settime(until_, start + 500, 0, ABSTIME)
    wall = create(0, SIGEV_NONE)
    settime(wall, time.time() + 500, 0, ABSTIME)
    cpu = create(2, SIGEV_NONE)
    settime(cpu, 100)
    idle = create(7, SIGEV_SIGNAL, RT + 3, 4)
    call(SYS_DELETE, deleted)
    soon = create(1, SIGEV_SIGNAL, RT, 1234)
    settime(soon, 3)
    beat = create(1, SIGEV_SIGNAL, RT + 1, 77)
    tids, woken = [], []

    def target():
        tids.append(threading.get_native_id())
        woken.append(take(RT + 2, 30))
    t = thread(target)
    until(lambda: tids, "thread")
    direct = create(1, SIGEV_THREAD_ID, RT + 2, 55, tids[0])
    settime(direct, 3)
    settime(beat, 0.05, 0.05)
    fired = create(1, SIGEV_SIGNAL, RT + 4, 88)
    settime(fired, 0.001)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.25)
    signal.setitimer(signal.ITIMER_VIRTUAL, 100, 50)
    signal.setitimer(signal.ITIMER_PROF, 200, 60)
    time.sleep(0.1)

    wait()

    passed = time.monotonic() - start
    interval, left = gettime(long)
    same("interval", interval, 7.5)
    within("long", left, 1000 - passed - 0.5, 1000 - passed + 0.5)
    within("absolute", gettime(until_)[1], 500 - passed - 0.5, 500 - passed + 0.5)
    within("by CLOCK_REALTIME", gettime(wall)[1], 400, 500)
    within("by processor time", gettime(cpu)[1], 50, 100)
    same("disarmed", gettime(idle), (0, 0))
    same("one that fired", take(RT + 4, 0), (-2, 88))  # SI_TIMER
    same("the next", take(RT + 4, 0), -11)
    same("soon", take(RT, 5), (-2, 1234))
    within("when soon came", time.monotonic() - start, 2.99, max(3.4, passed + 0.4))
    join_thread(t)
    same("by tid", woken, [(-2, 55)])
    same("beat", take(RT + 1, 1), (-2, 77))
    for _ in range(3):
        same("beat goes on", take(RT + 1, 1), (-2, 77))
        within("overrun", call(SYS_OVERRUN, beat), 0, 1000)
    n = len(alarms)
    until(lambda: len(alarms) >= n + 4, "alarms go on", 5)
    gaps = [round(b - a, 3) for a, b in zip(alarms, alarms[1:])]
    check(gaps and max(gaps) < 1.0 and sum(gaps[-3:]) > 0.6, f"gaps between alarms: {gaps}")
    left, interval = signal.getitimer(signal.ITIMER_VIRTUAL)
    within("virtual", left, 80, 100.1)
    same("virtual interval", interval, 50.0)
    left, interval = signal.getitimer(signal.ITIMER_PROF)
    within("prof", left, 150, 200.1)
    same("prof interval", interval, 60.0)
    fresh = create(1, SIGEV_NONE)
    check(fresh not in (long, until_, wall, cpu, idle, soon, beat, direct, fired), f"id {fresh} twice")


main(test)
