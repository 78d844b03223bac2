"""Descriptors of processes: alive, dead, gone; of threads; shared."""
import fcntl
import struct

from kind import *

THREAD, NONBLOCK = os.O_EXCL, os.O_NONBLOCK
EXIT = 8  # PIDFD_INFO_EXIT


def opened(pid, flags=0):
    fd = call(434, pid, flags)
    check(fd >= 0, f"pidfd_open {pid}: {fd}")
    return fd


def target(fd):
    with open(f"/proc/self/fdinfo/{fd}") as f:
        return int(dict(line.split(":") for line in f)["Pid"])


def send(fd, number):
    return call(424, fd, number, 0, 0)


def ended(fd):
    """The wait status of a process that is gone."""
    info = ctypes.create_string_buffer(struct.pack("Q56x", EXIT), 64)
    if libc.ioctl(fd, ctypes.c_ulong(0xc040ff0b), info):
        return None
    return struct.unpack("60xI", info.raw)[0]


def inodes(*fds):
    return [os.fstat(fd).st_ino for fd in fds]


def test():
    child = fork(lambda: go() or 7)
    victim = fork(lambda: signal.pause())
    zombie = fork(lambda: 5)
    tid, over = [], threading.Event()
    thread(lambda: tid.append(threading.get_native_id()) or over.wait())
    until(lambda: tid, "thread")
    itself, one, same_one, init = opened(os.getpid()), opened(child, NONBLOCK), opened(child), opened(1)
    other, dead, of_thread = opened(victim), opened(zombie), opened(tid[0], THREAD)
    shared = os.dup(one)
    until(lambda: state(zombie) == "Z", "zombie")

    def gone(body, status):
        pid = fork(body)
        fds = opened(pid), opened(pid), opened(pid, THREAD)
        until(lambda: state(pid) == "Z", "end")
        join(pid, status)
        return fds
    exited = gone(lambda: 3, 3 << 8)
    killed = gone(lambda: os.kill(os.getpid(), signal.SIGTERM), signal.SIGTERM)
    tells = ended(exited[0]) is not None
    poll = select.epoll()
    for fd in (other, exited[0], of_thread):
        poll.register(fd, select.EPOLLIN)

    def friend():
        go()
        until(lambda: there("GO-FRIEND"), "GO-FRIEND")
        same("friend: kill", send(other, signal.SIGKILL), 0)
        same("friend: inode", inodes(exited[0]), inodes(exited[1]))
    pid = fork(friend)
    wait()
    for fd, want in ((itself, os.getpid()), (one, child), (same_one, child), (init, 1), (other, victim), (dead, zombie), (of_thread, tid[0]),
                     (shared, child)) + tuple((fd, -1) for fd in exited + killed):
        same(f"process of {fd}", target(fd), want)
    same("flags", [fcntl.fcntl(fd, fcntl.F_GETFL) & (THREAD | NONBLOCK) for fd in (itself, one, same_one, of_thread, exited[2])],
         [0, NONBLOCK, 0, THREAD, THREAD])
    check(len(set(inodes(*exited))) == len(set(inodes(*killed))) == len(set(inodes(one, same_one, shared))) == 1, "one process, one inode")
    check(len(set(inodes(one, other, exited[0], killed[0]))) == 4, "each its inode")
    if tells:
        same("how they ended", (ended(exited[1]), ended(killed[1])), (3 << 8, signal.SIGTERM))
    same("signal to a dead one", send(exited[0], 0), -3)
    same("ready", sorted(fd for fd, _ in poll.poll(0)), [exited[0]])
    same("signal", send(one, 0), 0)
    write("GO-FRIEND", "")
    join(pid)
    join(victim, signal.SIGKILL)
    same("ready", sorted(fd for fd, _ in poll.poll(5)), sorted([exited[0], other]))
    same("waitid", os.waitid(os.P_PIDFD, dead, os.WEXITED).si_status, 5)
    check(readable(of_thread) is False, "thread has ended")
    over.set()
    until(lambda: readable(of_thread), "end of the thread")
    os.set_blocking(one, True)
    same("waitid", os.waitid(os.P_PIDFD, one, os.WEXITED).si_status, 7)


main(test)
