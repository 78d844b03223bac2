"""A tree of processes: groups, sessions, daemons, zombies, one that is stopped, SIGCHLD."""
from kind import *


def note(name):
    write(name, str(os.getpid()))


def noted(name):
    with open(path(name)) as f:
        return int(f.read())


def ids(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return fields[0], [int(x) for x in fields[1:4]]  # state; parent, group, session


def idle():
    until(lambda: there("LEAVE"), "LEAVE", 10 * LIMIT)


def test():
    deaths = []
    signal.signal(signal.SIGCHLD, lambda *_: deaths.append(1))

    def generations(n):
        def body():
            note(f"generation{n}")
            if n:
                join(fork(generations(n - 1)))
            else:
                idle()
        return body

    def daemon():
        if os.fork():
            os._exit(0)
        os.setsid()
        note("leader")
        if os.fork():
            os._exit(0)
        note("daemon")
        idle()
        write("daemon-done", f"{os.getppid()} {os.getsid(0) == noted('leader')} {os.getpgid(0) == noted('leader')}")

    def grouped():
        os.setpgid(0, 0)
        note("group")
        member = fork(lambda: note("member") or idle())
        other = fork(lambda: os.setpgid(0, 0) or note("other-group") or idle())
        join(member)
        join(other)

    def orphaned_group():
        """A group whose leader is gone."""
        os.setpgid(0, 0)
        fork(lambda: note("leaderless") or idle())
        os._exit(0)

    def session():
        os.setsid()
        note("session")
        a = fork(lambda: os.setpgid(0, 0) or note("job1") or idle())
        b = fork(lambda: note("job2") or idle())
        join(a)
        join(b)

    def parent_of_zombie():
        fork(lambda: note("zombie-child") or 5)
        note("zombie-parent")
        idle()
        _, status = os.wait()
        same("the child's zombie", status, 5 << 8)

    children = [fork(f) for f in (generations(4), grouped, session, parent_of_zombie)]
    join(fork(daemon))
    join(fork(orphaned_group))
    exited = fork(lambda: 42)
    killed = fork(lambda: os.kill(os.getpid(), signal.SIGKILL))
    dumped = fork(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    stopped = fork(lambda: note("stopped") or os.kill(os.getpid(), signal.SIGSTOP) or idle())
    seen = fork(lambda: note("seen") or os.kill(os.getpid(), signal.SIGSTOP) or idle())
    names = [f"generation{n}" for n in range(5)] + ["daemon", "group", "member", "other-group", "leaderless", "session", "job1",
                                                    "job2", "zombie-child", "zombie-parent", "stopped", "seen"]
    for name in names:
        until(lambda: there(name), name)
    for pid, want in ((exited, "Z"), (killed, "Z"), (dumped, "Z"), (noted("zombie-child"), "Z"), (stopped, "T"), (seen, "T")):
        until(lambda: state(pid) == want, f"{pid} in state {want}")
    same("the stop", os.waitpid(seen, os.WUNTRACED), (seen, signal.SIGSTOP << 8 | 0x7F))
    until(lambda: not os.path.exists(f"/proc/{noted('leader')}"), "end of the session's leader")
    pids = {name: noted(name) for name in names} | {"self": os.getpid(), "exited": exited, "killed": killed, "dumped": dumped}
    before = {name: ids(pid)[1] for name, pid in pids.items()}

    wait()

    same("ids", {name: ids(pid)[1] for name, pid in pids.items()}, before)
    for pid, want in ((exited, "Z"), (killed, "Z"), (dumped, "Z"), (stopped, "T"), (seen, "T")):
        until(lambda: ids(pid)[0] == want, f"state {want} of {pid}", 5)  # one who is let go runs for a moment before it is stopped again
    os.waitpid(seen, os.WUNTRACED | os.WNOHANG)  # who is stopped again may be reported again
    same("a stop to be waited for", os.waitpid(stopped, os.WUNTRACED), (stopped, signal.SIGSTOP << 8 | 0x7F))
    join(exited, 42 << 8)
    join(killed, signal.SIGKILL)
    _, code = os.waitpid(dumped, 0)
    same("ended by", code & 0x7F, signal.SIGSEGV)
    deaths.clear()
    write("LEAVE", "leave\n")
    for pid in stopped, seen:
        os.kill(pid, signal.SIGCONT)
        join(pid)
    for pid in children:
        join(pid)
    until(lambda: deaths, "SIGCHLD", 5)
    until(lambda: there("daemon-done"), "daemon")
    with open(path("daemon-done")) as f:
        same("daemon", f.read(), f"{before['daemon'][0]} True True")
    try:
        os.wait()
        fail("a child too many")
    except ChildProcessError:
        pass
    fresh = fork(lambda: 0)
    check(fresh not in pids.values(), f"pid {fresh} twice")
    join(fresh)


main(test)
