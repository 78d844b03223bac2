"""timerfd: one shot, periodic, expired, absolute, disarmed."""
import struct

from kind import *


class itimerspec(ctypes.Structure):
    _fields_ = [("interval", timespec), ("value", timespec)]


def create(clock=1, flags=0o4000):
    return ok(libc.timerfd_create(clock, flags))


def settime(fd, value, interval=0.0, flags=0):
    spec = itimerspec(*[timespec(int(x), int(x % 1 * 1e9)) for x in (interval, value)])
    ok(libc.timerfd_settime(fd, flags, ctypes.byref(spec), None))


def gettime(fd):
    spec = itimerspec()
    ok(libc.timerfd_gettime(fd, ctypes.byref(spec)))
    return tuple(t.sec + t.nsec / 1e9 for t in (spec.interval, spec.value))


def ticks(fd):
    try:
        return struct.unpack("Q", os.read(fd, 8))[0]
    except BlockingIOError:
        return 0


def test():
    start = time.monotonic()
    once, periodic, expired, absolute, off, missed = (create() for _ in range(6))
    wall, boot, waited = create(0), create(7), create(1, 0)
    settime(once, 3)
    settime(periodic, 0.1, 0.1)
    settime(expired, 0.01)
    settime(absolute, start + 3, 0, 1)
    settime(missed, 0.05, 100)
    settime(wall, time.time() + 1000, 0, 3)  # TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
    settime(boot, 1000, 5)
    settime(waited, 2.5)
    came = []
    t = thread(lambda: came.append((ticks(waited), time.monotonic() - start)))
    time.sleep(0.15)
    ticks(periodic)

    wait()

    passed = time.monotonic() - start
    within("once", gettime(once)[1], max(0, 3 - passed - 0.4), max(0.0, 3 - passed + 0.4))
    same("expired", (ticks(expired), ticks(expired)), (1, 0))
    same("off", (ticks(off), gettime(off)), (0, (0, 0)))
    same("missed", ticks(missed), 1)
    interval, left = gettime(missed)
    same("interval of missed", interval, 100.0)
    within("rest of missed", left, 100.05 - passed - 0.5, 100.05 - passed + 0.5)
    within("wall", gettime(wall)[1], 800, 1000)
    within("boot", gettime(boot)[1], 1000 - passed - 0.5, 1000 - passed + 0.5)
    same("interval of boot", gettime(boot)[0], 5.0)
    within("ticks", ticks(periodic), max(0, passed / 0.1 - 10), passed / 0.1 + 3)
    more = 0
    began = time.monotonic()
    while more < 5 and time.monotonic() - began < 5:
        time.sleep(0.02)
        more += ticks(periodic)
    within("time of 5 ticks", time.monotonic() - began, 0.35, 1.2)
    until(lambda: readable(once), "once", 10)
    until(lambda: readable(absolute), "absolute", 10)
    within("time of once", time.monotonic() - start, 2.99, max(3.5, passed + 1.8))
    same("once, absolute", (ticks(once), ticks(absolute)), (1, 1))
    join_thread(t)
    for n, at in came:
        same("waited", n, 1)
        within("time of waited", at, 2.49, 2.9)


main(test)
