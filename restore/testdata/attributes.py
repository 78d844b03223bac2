"""What else a process has: limits, umask, directory, niceness, names, priorities, flags."""
import resource

from kind import *


def prctl(*args):
    return call(157, *args, *[0] * (5 - len(args)))


def limits():
    return {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}


def text(name):
    with open(name) as f:
        return f.read()


def everything():
    byte = ctypes.c_int()
    prctl(37, ctypes.byref(byte))  # PR_GET_CHILD_SUBREAPER
    death = ctypes.c_int()
    prctl(2, ctypes.byref(death))  # PR_GET_PDEATHSIG
    return {
        "limits": limits(), "cwd": os.getcwd(), "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "oom_score_adj": text("/proc/self/oom_score_adj"), "comm": text("/proc/self/comm"),
        "cmdline": text("/proc/self/cmdline"), "environ": text("/proc/self/environ"), "exe": os.readlink("/proc/self/exe"),
        "personality": call(135, 0xFFFFFFFF), "dumpable": prctl(3), "timer slack": prctl(30),
        "policy": os.sched_getscheduler(0), "affinity": sorted(os.sched_getaffinity(0)), "subreaper": byte.value,
        "death signal": death.value, "huge pages off": prctl(42), "status": status("Umask", "NoNewPrivs", "Tgid", "NSpid", "PPid"),
        "io priority": call(252, 1, 0), "core dump": text("/proc/self/coredump_filter"), "login": text("/proc/self/loginuid"),
        "threads": [(call(252, 1, tid), call(145, tid)) for tid in sorted(map(int, os.listdir("/proc/self/task")))],
        "auxv": open("/proc/self/auxv", "rb").read(),
    }


def change():
    idle = threading.Event()
    thread(lambda: (call(251, 1, 0, 3 << 13), idle.set(), time.sleep(3600)))
    idle.wait()
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 1 << 20))
    resource.setrlimit(resource.RLIMIT_STACK, (4 << 20, 64 << 20))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, resource.RLIM_INFINITY))
    call(251, 1, 0, 2 << 13 | 6)
    for name, value in ("coredump_filter", "0x1f"), ("loginuid", "1234"):
        with open("/proc/self/" + name, "w") as f:
            f.write(value)
    os.umask(0o137)
    os.mkdir(path("dir é\n"))
    os.chdir(path("dir é\n"))
    os.nice(7)
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("321")
    with open("/proc/self/comm", "w") as f:
        f.write("odd) name (\n")
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    prctl(1, signal.SIGUSR2)  # PR_SET_PDEATHSIG
    prctl(29, 123456)
    prctl(41, 1)  # PR_SET_THP_DISABLE
    call(135, 0x0040000)  # ADDR_NO_RANDOMIZE
    os.sched_setaffinity(0, {0})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def test():
    def odd():
        change()
        want = everything()
        with open(path("changed"), "w"):
            pass
        go()
        after = everything()
        for key, value in want.items():
            same(key, after[key], value)
        os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o777))
        same("mode of a new file", os.stat("made").st_mode & 0o777, 0o777 & ~0o137)

    def hidden():
        prctl(4, 0)  # PR_SET_DUMPABLE
        go()
        same("not dumpable", prctl(3), 0)

    def number():
        with open("/proc/sys/kernel/ns_last_pid", "w") as f:
            f.write("30000")

    pids = [fork(odd), fork(hidden)]
    until(lambda: there("changed"), "changes")
    want = everything()
    number()
    wait()
    late = fork(lambda: None)
    within("the next pid", late, 30001, 30010)
    join(late)
    after = everything()
    for key, value in want.items():
        same("parent's " + key, after[key], value)
    for pid in pids:
        join(pid)


main(test)
