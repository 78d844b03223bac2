"""Mutexes, condition variables and robust mutexes, between threads and between processes."""
import mmap

from kind import *

MUTEX, COND, ATTR = 40, 48, 64  # sizes, with room
PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_INHERIT = 1, 1, 1
EOWNERDEAD, EBUSY = 130, 16


def at(shared, offset):
    return ctypes.byref((ctypes.c_char * 8).from_buffer(shared, offset))


def mutex(shared, offset, robust=False, inherit=False):
    attr = ctypes.create_string_buffer(ATTR)
    libc.pthread_mutexattr_init(attr)
    libc.pthread_mutexattr_setpshared(attr, PTHREAD_PROCESS_SHARED)
    if robust:
        libc.pthread_mutexattr_setrobust(attr, PTHREAD_MUTEX_ROBUST)
    if inherit:
        libc.pthread_mutexattr_setprotocol(attr, PTHREAD_PRIO_INHERIT)
    m = at(shared, offset)
    same("mutex_init", libc.pthread_mutex_init(m, attr), 0)
    return m


def test():
    shared = mmap.mmap(-1, 4096)
    plain, robust, inherit = mutex(shared, 0), mutex(shared, 64, robust=True), mutex(shared, 128, inherit=True)
    fragile = mutex(shared, 192, robust=True)
    guard = mutex(shared, 256)
    cond = at(shared, 320)
    attr = ctypes.create_string_buffer(ATTR)
    libc.pthread_condattr_init(attr)
    libc.pthread_condattr_setpshared(attr, PTHREAD_PROCESS_SHARED)
    libc.pthread_cond_init(cond, attr)
    barrier = at(shared, 400)
    battr = ctypes.create_string_buffer(ATTR)
    libc.pthread_barrierattr_init(battr)
    libc.pthread_barrierattr_setpshared(battr, PTHREAD_PROCESS_SHARED)
    libc.pthread_barrier_init(barrier, battr, 3)
    semaphore = at(shared, 448)
    libc.sem_init(semaphore, 1, 0)

    for m in (plain, robust, inherit):
        same("lock", libc.pthread_mutex_lock(m), 0)

    def holder():
        same("child: lock", libc.pthread_mutex_lock(fragile), 0)
        with open(path("held"), "w"):
            pass
        go()
        until(lambda: there("DIE"), "DIE")
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_thread():
        """A thread of ours that ends with a robust mutex held."""
        same("thread: lock", libc.pthread_mutex_lock(doomed), 0)
        go()
    doomed = mutex(shared, 512, robust=True)

    def want(m, result=0):
        def body():
            same("lock", libc.pthread_mutex_lock(m), result)
            if result == EOWNERDEAD:
                libc.pthread_mutex_consistent(m)
            check(there("GO"), "lock before its time")
            same("unlock", libc.pthread_mutex_unlock(m), 0)
        return body

    def waiter():
        libc.pthread_mutex_lock(guard)
        while shared[600] == 0:
            libc.pthread_cond_wait(cond, guard)
        libc.pthread_mutex_unlock(guard)

    owner = fork(holder)
    until(lambda: there("held"), "child's lock")
    t = thread(dying_thread)
    time.sleep(0.05)
    children = [fork(f) for f in (want(plain), want(robust), want(inherit), want(fragile, EOWNERDEAD), waiter, waiter,
                                  lambda: libc.pthread_barrier_wait(barrier) and None, lambda: libc.sem_wait(semaphore) and None)]
    threads = [thread(f) for f in (want(plain), want(robust), want(inherit), waiter, lambda: libc.pthread_barrier_wait(barrier))]
    for pid in children:
        asleep(pid)
    lock, got = threading.Lock(), []
    lock.acquire()
    python = [thread(lambda: (lock.acquire(), got.append(1), lock.release())) for _ in range(3)]
    robust_lists = [call(274, 0, ctypes.byref(ctypes.c_long()), ctypes.byref(ctypes.c_long()))]
    time.sleep(0.1)

    wait()

    same("robust list", [call(274, 0, ctypes.byref(ctypes.c_long()), ctypes.byref(ctypes.c_long()))], robust_lists)
    same("busy", libc.pthread_mutex_trylock(plain), EBUSY)
    for m in (plain, robust, inherit):
        same("unlock", libc.pthread_mutex_unlock(m), 0)
    write("DIE", "die\n")
    join(owner, signal.SIGKILL)
    join_thread(t)
    same("a dead thread's mutex", libc.pthread_mutex_lock(doomed), EOWNERDEAD)
    libc.pthread_mutex_lock(guard)
    shared[600] = 1
    libc.pthread_cond_broadcast(cond)
    libc.pthread_mutex_unlock(guard)
    libc.pthread_barrier_wait(barrier)
    libc.sem_post(semaphore)
    for pid in children:
        join(pid)
    for t in threads:
        join_thread(t, 10)
    lock.release()
    for t in python:
        join_thread(t, 10)
    same("python locks", len(got), 3)


main(test)
