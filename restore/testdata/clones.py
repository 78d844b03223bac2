"""Processes that share what threads share: descriptors, directories and umask."""
import fcntl

from kind import *

SYS_CLONE = 56
CLONE_FS, CLONE_FILES = 0x200, 0x400


def clone(flags, body):
    """fork(), with flags."""
    pid = call(SYS_CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid:
        check(pid > 0, f"clone: {pid}")
        return pid
    try:
        body()
        code = 0
    except BaseException:
        fail(f"pid {os.getpid()}: " + traceback.format_exc())
        code = 99
    os._exit(code)


def has(fd):
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False


def step(name):
    until(lambda: there(name), name)


def descriptors():
    """The parent opens, the child closes, and another child has a table of its own. Its grandchild shares with the parent."""
    lock = os.open(path("lock"), os.O_RDWR | os.O_CREAT)
    fcntl.lockf(lock, fcntl.LOCK_EX)

    def child():
        grandchild = clone(CLONE_FILES, lambda: write("grandchild", "") or step("opened") or same("grandchild's file", has(200), True))
        step("opened")
        same("child's file", has(200), True)
        same("flags", fcntl.fcntl(200, fcntl.F_GETFD), fcntl.FD_CLOEXEC)
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # they own it together
        join(grandchild)
        os.close(200)

    def stranger():
        step("opened")
        same("stranger's file", has(200), False)
        try:
            fcntl.lockf(os.open(path("lock"), os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
            fail("the lock of others")
        except OSError:
            pass

    a, b = clone(CLONE_FILES, child), clone(0, stranger)
    step("grandchild")

    def after():
        fd = os.open(path("opened-file"), os.O_RDWR | os.O_CREAT)
        os.dup2(fd, 200, False)
        write("opened", "")
        join(b)
        join(a)
        same("closed by the child", has(200), False)
    return after


def orphans():
    """Two share a table, and their parent, who made both, is gone."""
    def one():
        write("one", "")
        step("go-orphans")
        os.dup2(os.open(path("orphan-file"), os.O_RDWR | os.O_CREAT), 201)
        write("orphan-opened", "")

    def two():
        write("two", "")
        step("orphan-opened")
        write("orphans-done", str(has(201)))

    def parent():
        clone(CLONE_FILES, one)
        clone(CLONE_FILES, two)
    join(fork(parent))
    step("one")
    step("two")

    def after():
        write("go-orphans", "")
        step("orphans-done")
        with open(path("orphans-done")) as f:
            same("the orphan's file", f.read(), "True")
    return after


def directories():
    def child():
        os.makedirs(path("below/deeper"))
        os.chdir(path("below"))
        os.umask(0o27)
        write("moved", "")
        step("go-directories")
        same("directory before", os.getcwd(), path("below"))
        os.chdir("deeper")
        os.umask(0o21)

    here, mask = os.getcwd(), os.umask(0)
    os.umask(mask)
    def pair():
        pid = clone(CLONE_FS, child)
        step("moved")
        same("directory", os.getcwd(), path("below"))
        write("pair", "")
        write("go-directories", "") if there("GO") else step("go-directories")
        join(pid)
        same("directory after", os.getcwd(), path("below/deeper"))
        same("umask after", os.umask(0), 0o21)
    pid = fork(pair)
    step("pair")

    def after():
        write("go-directories", "")
        join(pid)
        same("own directory", os.getcwd(), here)
        same("own umask", os.umask(mask), mask)
    return after


def test():
    afters = [orphans(), directories(), descriptors()]
    wait()
    for after in afters:
        after()


main(test)
