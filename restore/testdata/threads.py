"""Threads with names, thread-local values of Python and of C, tids and scheduling."""
from kind import *

N = 20
libc.pthread_setspecific.argtypes = [ctypes.c_uint, ctypes.c_void_p]
libc.pthread_getspecific.argtypes = [ctypes.c_uint]
libc.pthread_getspecific.restype = ctypes.c_void_p


def test():
    local = threading.local()
    key = ctypes.c_uint()
    libc.pthread_key_create(ctypes.byref(key), None)
    event, started, done = threading.Event(), threading.Barrier(N + 1), []
    selves = set()

    def body(i):
        name = f"worker-{i}"
        libc.prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
        libc.prctl(29, (i + 1) * 10000, 0, 0, 0)  # PR_SET_TIMERSLACK
        local.value = i * i
        libc.pthread_setspecific(key, 1000 + i)
        ctypes.set_errno(i)
        if i % 3 == 0:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), i % 10)
        if i % 4 == 0:
            os.sched_setaffinity(threading.get_native_id(), {0})
        tid, ident = threading.get_native_id(), threading.get_ident()
        started.wait()
        if i % 2:
            event.wait()
        else:
            while not event.is_set():
                time.sleep(0.01)
        same(f"{name}: errno", ctypes.get_errno(), i)
        with open(f"/proc/self/task/{tid}/comm") as f:
            same(f"{name}: comm", f.read(), name + "\n")
        same(f"{name}: tid", threading.get_native_id(), tid)
        same(f"{name}: ident", threading.get_ident(), ident)
        same(f"{name}: gettid", call(186), tid)
        same(f"{name}: local", local.value, i * i)
        same(f"{name}: specific", libc.pthread_getspecific(key), 1000 + i)
        same(f"{name}: timer slack", libc.prctl(30, 0, 0, 0, 0), (i + 1) * 10000)
        same(f"{name}: nice", os.getpriority(os.PRIO_PROCESS, tid), i % 10 if i % 3 == 0 else 0)
        same(f"{name}: affinity", os.sched_getaffinity(tid) == {0}, i % 4 == 0 or os.cpu_count() == 1)
        done.append(i)

    threads = [thread(body, i) for i in range(N)]
    started.wait()
    tids = sorted(os.listdir("/proc/self/task"))
    wait()
    same("tasks", sorted(os.listdir("/proc/self/task")), tids)
    event.set()
    for t in threads:
        join_thread(t)
    same("came back", sorted(done), list(range(N)))
    until(lambda: len(os.listdir("/proc/self/task")) == 1, "threads gone", 10)
    fresh = []
    late = thread(lambda: fresh.append(threading.get_native_id()))
    join_thread(late)
    same("a late thread", len(fresh), 1)


main(test)
