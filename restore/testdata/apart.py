"""Threads that do not share all that threads share, and a process whose first thread has ended."""
import fcntl

from kind import *

SYS_EXIT, SYS_UNSHARE, CLONE_FS, CLONE_FILES = 60, 272, 0x200, 0x400


def descriptors():
    """A thread with a table of its own, and one that it has made, which shares that. Each table has a lock."""
    common = os.open(path("common"), os.O_RDWR | os.O_CREAT)
    mine = os.dup2(os.open(path("mine"), os.O_RDWR | os.O_CREAT), 210)
    fcntl.lockf(common, fcntl.LOCK_EX, 10, 0)
    started, second = threading.Event(), threading.Event()

    def locked(fd, start):
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start)
            return False
        except OSError:
            return True

    def body():
        same("unshare", call(SYS_UNSHARE, CLONE_FILES), 0)
        os.close(mine)
        os.dup2(os.open(path("theirs"), os.O_RDWR | os.O_CREAT), 211)
        fcntl.lockf(common, fcntl.LOCK_EX, 10, 100)

        def more():
            second.set()
            step("GO-descriptors")
            same("the second thread's files", (has(210), has(211)), (False, True))
            os.write(211, b"second")
            same("its lock", (locked(common, 0), locked(common, 100)), (True, False))
            os.close(211)
        t = thread(more)
        second.wait()
        started.set()
        join_thread(t)
        same("the thread's files", (has(210), has(211)), (False, False))

    t = thread(body)
    started.wait()

    def after():
        same("files", (has(210), has(211)), (True, False))
        same("locks", (locked(common, 0), locked(common, 100)), (False, True))
        write("GO-descriptors", "")
        join_thread(t)
        same("files after", (has(210), has(211)), (True, False))
        with open(path("theirs")) as f:
            same("written", f.read(), "second")
    return after


def directories():
    here = os.getcwd()
    mask = os.umask(0o22)
    os.umask(mask)
    started = threading.Event()

    def body():
        same("unshare", call(SYS_UNSHARE, CLONE_FS), 0)
        os.chdir(DIR)
        os.umask(0o37)
        started.set()
        step("GO-directories")
        same("the thread's directory", os.getcwd(), DIR)
        same("the thread's umask", os.umask(0o11), 0o37)
        os.chdir("/usr")

    t = thread(body)
    started.wait()

    def after():
        same("directory", os.getcwd(), here)
        write("GO-directories", "")
        join_thread(t)
        same("directory after", os.getcwd(), here)
        same("umask after", os.umask(mask), mask)
    return after


def headless():
    """The first thread ends, another one goes on, with a signal that waits and a timer."""
    def body():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])

        def rest():
            until(lambda: state(os.getpid()) == "Z", "end of the first thread")
            os.kill(os.getpid(), signal.SIGUSR1)
            write("headless", "")
            step("GO-headless")
            same("state of the first thread", state(os.getpid()), "Z")
            same("tasks", len(os.listdir("/proc/self/task")), 2)
            same("name", status("Name", pid=os.getpid())["Name"], "headless")
            same("waiting", signal.sigpending(), {signal.SIGUSR1})
            same("signal", signal.sigwait([signal.SIGUSR1]), signal.SIGUSR1)
            same("file", os.fstat(own).st_ino, os.stat(path("headless-file")).st_ino)
            os.kill(os.getpid(), signal.SIGUSR2)
            same("another signal", signal.sigwait([signal.SIGUSR2]), signal.SIGUSR2)
            os._exit(7)

        own = os.open(path("headless-file"), os.O_RDWR | os.O_CREAT)
        libc.prctl(15, b"headless", 0, 0, 0)  # PR_SET_NAME
        thread(rest)
        call(SYS_EXIT, 3)

    pid = fork(body)
    step("headless")

    def after():
        write("GO-headless", "")
        join(pid, 7 << 8)
    return after


def test():
    afters = [headless(), descriptors(), directories()]  # forks before it has threads
    wait()
    for after in afters:
        after()


main(test)
