"""Sleeps take as long as they were to take, of which what passes for the instance counts."""
from kind import *

TIME = 4.0
SYS_NANOSLEEP, SYS_CLOCK_NANOSLEEP, SYS_FUTEX, SYS_POLL, SYS_SELECT = 35, 230, 202, 7, 23


def timed(what, body, slack=0.4):
    """The time by the clock that goes on from the freeze."""
    start = time.monotonic()
    result = body(start)
    within(f"{what} (result {result})", time.monotonic() - start, TIME - 0.001, TIME + slack)
    return result


def spec(seconds):
    return ctypes.byref(timespec(int(seconds), int(seconds % 1 * 1e9)))


def nanosleep(_):
    left = timespec(0, 0)
    same("nanosleep", call(SYS_NANOSLEEP, spec(TIME), ctypes.byref(left)), 0)


def no_rmtp(_):
    same("nanosleep without rmtp", call(SYS_NANOSLEEP, spec(TIME), 0), 0)


def relative(clock):
    return lambda _: same(f"relative sleep by clock {clock}", call(SYS_CLOCK_NANOSLEEP, clock, 0, spec(TIME), 0), 0)


def absolute(start):
    same("absolute sleep", call(SYS_CLOCK_NANOSLEEP, 1, 1, spec(start + TIME), 0), 0)


def futex(_):
    word = ctypes.c_int(5)
    same("futex", call(SYS_FUTEX, ctypes.byref(word), 128, 5, spec(TIME), 0, 0), -110)  # FUTEX_WAIT, ETIMEDOUT


def futex_bitset(start):
    word = ctypes.c_int(5)
    same("futex until", call(SYS_FUTEX, ctypes.byref(word), 9 | 128, 5, spec(start + TIME), 0, -1), -110)


def poll(_):
    same("poll", call(SYS_POLL, 0, 0, int(TIME * 1000)), 0)


def select_(_):
    r, w = os.pipe()
    same("select", select.select([r], [], [], TIME), ([], [], []))


def condition(_):
    c = threading.Condition()
    with c:
        same("condition", c.wait(TIME), False)


def test():
    kinds = {f.__name__: f for f in (nanosleep, no_rmtp, absolute, futex, futex_bitset, poll, condition)}
    kinds["monotonic"], kinds["boottime"] = relative(1), relative(7)
    kinds["time.sleep"] = lambda _: time.sleep(TIME)
    threads = [thread(timed, name, body) for name, body in kinds.items()]
    # The kernel restarts select by itself only since it has a restart block: a longer sleep is allowed, a shorter one is not.
    threads.append(thread(timed, "select", select_, 3 * TIME))
    child = fork(lambda: timed("child", nanosleep))
    time.sleep(0.1)
    ready()
    for t in threads:
        join_thread(t)
    join(child)
    go()


main(test)
