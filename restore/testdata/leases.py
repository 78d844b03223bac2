"""Leases on files: whole ones, and such that somebody waits for."""
import fcntl

from kind import *

RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SIGNAL = signal.SIGRTMIN + 5


def opened(name, flags):
    return os.open(path(name), flags | os.O_CREAT, 0o644)


def leases(*fds):
    return [fcntl.fcntl(fd, fcntl.F_GETLEASE) for fd in fds]


def lease(fd, kind):
    fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)


def try_open(name, flags):
    try:
        os.close(os.open(path(name), flags | os.O_NONBLOCK))
        return True
    except BlockingIOError:
        return False


def told():
    """The next signal about a lease."""
    info = signal.sigtimedwait({SIGNAL}, 0)
    return info and info.si_signo


def test():
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
    signal.signal(signal.SIGIO, lambda *_: fail("a signal"))
    read, write_, given = opened("read", os.O_RDONLY), opened("write", os.O_RDWR), opened("given", os.O_RDWR)
    again = os.open(path("read"), os.O_RDONLY)
    shrinking, going, last = opened("shrinking", os.O_RDWR), opened("going", os.O_RDWR), opened("last", os.O_RDONLY)
    os.chown(path("write"), 1000, 1000)
    libc.setfsuid(1000)
    lease(write_, WR)
    libc.setfsuid(0)
    for fd, kind in ((read, RD), (again, RD), (given, WR), (shrinking, WR), (going, WR), (last, RD)):
        lease(fd, kind)
        fcntl.fcntl(fd, 10, SIGNAL)  # F_SETSIG
    fcntl.fcntl(write_, 10, SIGNAL)
    same("shrinking", (try_open("shrinking", os.O_RDONLY), told()), (False, SIGNAL))
    same("going", (try_open("going", os.O_WRONLY), told()), (False, SIGNAL))
    same("last", (try_open("last", os.O_WRONLY), told()), (False, SIGNAL))

    def child():
        go()
        same("child", leases(given), [WR])
    pid = fork(child)
    os.close(given)
    want = [RD, RD, WR, RD, UN, UN]
    same("leases", leases(read, again, write_, shrinking, going, last), want)
    wait()
    same("leases", leases(read, again, write_, shrinking, going, last), want)
    same("signals", told(), None)
    join(pid)
    same("shrinking", try_open("shrinking", os.O_RDONLY), False)
    lease(shrinking, UN)
    same("shrunk", try_open("shrinking", os.O_RDONLY), True)
    lease(going, UN)
    lease(last, UN)
    same("gone", (try_open("going", os.O_WRONLY), try_open("last", os.O_WRONLY)), (True, True))
    same("read", (try_open("read", os.O_RDONLY), told()), (True, None))
    same("read, broken", (try_open("read", os.O_WRONLY), told(), told()), (False, SIGNAL, SIGNAL))
    same("write, broken", (try_open("write", os.O_RDONLY), told(), told()), (False, SIGNAL, None))
    same("leases, broken", leases(read, again, write_), [UN, UN, RD])


main(test)
