"""System V objects: shared memory attached here and there, semaphores with something to undo, queues of messages; ids, keys,
owners, pids."""
import struct

from kind import *

MSGGET, MSGSND, MSGRCV, MSGCTL, SEMGET, SEMOP, SEMCTL = 68, 69, 70, 71, 64, 65, 66
SHMGET, SHMAT, SHMCTL, SHMDT = 29, 30, 31, 67
CREAT, NOWAIT, UNDO, RMID, SET, STAT = 0o1000, 0o4000, 0x1000, 0, 1, 2
RDONLY, DEST = 0o10000, 0o1000
PAGE = 4096
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmdt.argtypes = [ctypes.c_void_p]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def good(result, what):
    check(result >= 0, f"{what}: {result}")
    return result


def stat(number, id, size):
    buf = ctypes.create_string_buffer(size)
    good(call(number, id, STAT, buf) if number != SEMCTL else call(SEMCTL, id, 0, STAT, buf), "stat")
    return buf.raw


def perm(raw):
    """key, uid, gid, cuid, cgid, mode"""
    return struct.unpack("iIIIII", raw[:24])


def segment(id):
    """perm, size, pids of creator and, if any has it, of the last user, attachments"""
    raw = stat(SHMCTL, id, 112)
    creator, last, attached = struct.unpack("iiQ", raw[80:96])
    return perm(raw), *struct.unpack("Q", raw[48:56]), creator, last if attached else None, attached


def queue(id):
    """perm, bytes, messages, most bytes, pids"""
    raw = stat(MSGCTL, id, 120)
    return perm(raw), struct.unpack("QQQii", raw[72:104])


def sems(id, n):
    """perm, whether there was an operation, number; values and pids"""
    raw = stat(SEMCTL, id, 104)
    return (perm(raw), struct.unpack("q", raw[48:56])[0] != 0, struct.unpack("Q", raw[80:88])[0],
            [(call(SEMCTL, id, i, 12), call(SEMCTL, id, i, 11)) for i in range(n)])


def attach(id, flags=0):
    address = libc.shmat(id, None, flags)
    check(address != ctypes.c_void_p(-1).value, "shmat")
    return address


def send(id, kind, data):
    return call(MSGSND, id, ctypes.create_string_buffer(struct.pack("q", kind) + data, 8 + len(data)), len(data), NOWAIT)


def receive(id, kind=0):
    buf = ctypes.create_string_buffer(10000)
    n = call(MSGRCV, id, buf, 9000, kind, NOWAIT)
    return (struct.unpack("q", buf[:8])[0], buf[8:8 + n]) if n >= 0 else n


def operate(id, *ops):
    return call(SEMOP, id, ctypes.create_string_buffer(b"".join(struct.pack("Hhh", *op) for op in ops)), len(ops))


def maps(address):
    with open("/proc/self/maps") as f:
        for line in f:
            low, high = (int(x, 16) for x in line.split()[0].split("-"))
            if low <= address < high:
                return line


def test():
    zero = attach(good(call(SHMGET, 0, PAGE, 0o600), "shmget"))
    ctypes.memmove(zero, b"number 0", 8)
    for i in range(3):  # so that the ids to come are not the first
        call(SHMCTL, good(call(SHMGET, 0, PAGE, 0o600), "shmget"), RMID, 0)
        call(SEMCTL, good(call(SEMGET, 0, 1, 0o600), "semget"), 0, RMID, 0)
        call(MSGCTL, good(call(MSGGET, 0, 0o600), "msgget"), RMID, 0)

    both = good(call(SHMGET, 0x1234, 64 * PAGE, 0o640 | CREAT), "shmget")
    here = attach(both)
    ctypes.memmove(here, b"in both", 7)
    twice = attach(both, RDONLY)
    odd = good(call(SHMGET, -7 & 0xFFFFFFFF, 5000, 0o600 | CREAT), "shmget")
    at = attach(odd)
    ctypes.memmove(at, b"odd", 3)
    ctypes.memmove(at + 8000, b"beyond the end", 14)
    alone = good(call(SHMGET, 0x99, 3 * PAGE, 0o600 | CREAT), "shmget")
    left = attach(alone)
    ctypes.memmove(left + 2 * PAGE, b"left alone", 10)
    libc.shmdt(left)
    doomed = good(call(SHMGET, 0x55, 8 * PAGE, 0o600 | CREAT), "shmget")
    doom = attach(doomed)
    ctypes.memmove(doom + 7 * PAGE, b"doomed", 6)
    good(call(SHMCTL, doomed, RMID, 0), "rmid")
    holes = good(call(SHMGET, 0, 8 * PAGE, 0o600), "shmget")
    hole = attach(holes)
    ctypes.memmove(hole, b"first", 5)
    ctypes.memmove(hole + 5 * PAGE, b"sixth", 5)
    ok(libc.munmap(hole + PAGE, 2 * PAGE))
    ok(libc.munmap(hole + 7 * PAGE, PAGE))
    ok(libc.mprotect(hole + 3 * PAGE, PAGE, PROT_READ))

    os.chmod(DIR, 0o777)

    def stranger():
        os.setgroups([])
        os.setresgid(5, 5, 5)
        os.setresuid(1000, 1000, 1000)
        id = good(call(SHMGET, 0x77, PAGE, 0o600 | CREAT), "shmget")
        ctypes.memmove(attach(id), b"a stranger's", 12)
        set = good(call(SEMGET, 0x77, 3, 0o600 | CREAT), "semget")
        call(SEMCTL, set, 1, 16, 7)
        q = good(call(MSGGET, 0x77, 0o600 | CREAT), "msgget")
        send(q, 3, b"from a stranger")
        write("strange", f"{id} {set} {q}")
    pid = fork(stranger)
    join(pid)
    with open(path("strange")) as f:
        strange, strange_set, strange_queue = map(int, f.read().split())
    same("stranger's segment", segment(strange), ((0x77, 1000, 5, 1000, 5, 0o600), PAGE, pid, None, 0))

    set = good(call(SEMGET, 0x4321, 5, 0o660 | CREAT), "semget")
    untouched = good(call(SEMGET, 0, 300, 0o600), "semget")
    for i, v in enumerate((1, 0, 5, 32767, 2)):
        call(SEMCTL, set, i, 16, v)
    good(operate(set, (0, -1, UNDO), (2, 3, UNDO)), "semop")

    def locker():
        good(operate(set, (4, -1, UNDO)), "semop")
        good(operate(set, (2, -2, UNDO)), "semop")
        write("locked", "")
        go()
        until(lambda: there("release"), "release")
    locking = fork(locker)

    def waiter():
        until(lambda: there("locked"), "locker")
        write("waits", "")
        good(operate(set, (1, -1, 0)), "semop")
    waiting = fork(waiter)

    q = good(call(MSGGET, 0x1111, 0o622 | CREAT), "msgget")
    texts = [(1 + i % 3, b"message %d" % i) for i in range(20)] + [(9, b""), (2 ** 40, b"x" * 4000), (4, b"last")]
    for kind, data in texts:
        good(send(q, kind, data), "msgsnd")
    small = good(call(MSGGET, 0, 0o600), "msgget")
    buf = ctypes.create_string_buffer(stat(MSGCTL, small, 120), 120)
    struct.pack_into("Q", buf, 88, 100)
    struct.pack_into("II", buf, 4, 7, 8)
    good(call(MSGCTL, small, SET, buf), "msgctl")
    send(small, 1, b"x" * 90)

    def child():
        theirs = attach(both)
        until(lambda: ctypes.string_at(here, 4) == b"ping", "ping")
        same("the child's other attachment", ctypes.string_at(theirs, 4), b"ping")
        same("inherited", ctypes.string_at(doom + 7 * PAGE, 6), b"doomed")
        ctypes.memmove(theirs + 63 * PAGE, b"pong", 4)
        libc.shmdt(theirs)
    pid = fork(child)
    until(lambda: there("waits") and segment(both)[-1] == 9, "children")
    asleep(waiting)
    asleep(pid)

    def everything():
        return ([segment(id) for id in (both, odd, doomed, holes, strange)], segment(alone)[:3],
                [queue(id) for id in (q, small, strange_queue)],
                [sems(set, 5), sems(strange_set, 3), sems(untouched, 300)],
                [maps(a) for a in (here, twice, at, doom, hole, hole + 3 * PAGE, hole + 4 * PAGE)])
    before = everything()

    wait()

    for got, want in zip(everything(), before):
        same("objects", got, want)
    same("maps of the hole", [maps(hole + i * PAGE) for i in (1, 2, 7)], [None] * 3)
    same("the first", (ctypes.string_at(zero, 8), segment(0)[-1]), (b"number 0", 4))
    same("twice", ctypes.string_at(twice, 7), b"in both")
    ctypes.memmove(here, b"ping", 4)
    same("twice, written", ctypes.string_at(twice, 4), b"ping")
    join(pid)
    same("from the child", ctypes.string_at(here + 63 * PAGE, 4), b"pong")
    same("odd", (ctypes.string_at(at, 3), ctypes.string_at(at + 8000, 14)), (b"odd", b"beyond the end"))
    left = attach(alone)
    same("left alone", ctypes.string_at(left + 2 * PAGE, 10), b"left alone")
    same("holes", (ctypes.string_at(hole, 5), ctypes.string_at(hole + 5 * PAGE, 5)), (b"first", b"sixth"))
    same("stranger's", ctypes.string_at(attach(strange), 12), b"a stranger's")
    for i in range(3):
        ok(libc.shmdt((here, twice, at)[i]))
    same("keys", [call(SHMGET, 0x1234, 0, 0), call(SEMGET, 0x4321, 0, 0), call(MSGGET, 0x1111, 0)], [both, set, q])
    same("messages of type 2", [receive(q, 2) for _ in range(7)], [t for t in texts if t[0] == 2])
    same("messages", [receive(q) for _ in range(len(texts) - 7)], [t for t in texts if t[0] != 2])
    check(isinstance(receive(q), int), "another message")
    check(send(small, 1, b"x" * 11) < 0, "a queue that is full takes a message")
    same("small", receive(small), (1, b"x" * 90))
    same("stranger's message", receive(strange_queue), (3, b"from a stranger"))

    call(SEMCTL, set, 1, 16, 1)
    join(waiting)
    write("release", "")
    join(locking)
    same("what the end of a process undoes", [v for v, _ in sems(set, 5)[3]], [0, 0, 8, 32767, 2])
    same("attachments", segment(both)[-1], 0)
    same("doomed", segment(doomed)[-1], 1)
    ok(libc.shmdt(doom))
    check(call(SHMCTL, doomed, STAT, ctypes.create_string_buffer(112)) < 0, "the doomed is still there")
    same("this process's own undoing", operate(set, (0, 1, UNDO), (2, -3, UNDO)), 0)
    after = good(call(SHMGET, 0, PAGE, 0o600), "shmget")
    check(after not in (both, odd, alone, holes, strange), "an id twice")


main(test)
