"""Processes that share what threads share: descriptors, directories and umask, memory, signal actions."""
import fcntl
import mmap
import struct

from kind import *

SYS_CLONE, SYS_FUTEX, SYS_RT_SIGACTION = 56, 202, 13
CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_PARENT = 0x100, 0x200, 0x400, 0x800, 0x8000
FUTEX_WAIT, FUTEX_WAKE, SIG_IGN = 0, 1, 1


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


def memory(flags):
    """A child by machine code: it waits for a word to change, changes another, ignores SIGUSR1, and exits."""
    page = libc.mmap(None, 8192, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    word, answer, action = page + 4096, page + 4100, page + 4112
    ctypes.memmove(action, struct.pack("QQQQ", SIG_IGN, 0x04000000, 0, 0), 32)  # struct sigaction with SA_RESTORER
    program = (b"\xb8\x38\x00\x00\x00" b"\xbf" + struct.pack("I", flags | signal.SIGCHLD) +  # mov eax, 56; mov edi, flags
               b"\x48\xbe" + struct.pack("Q", page + 8192) +  # mov rsi, stack
               b"\x31\xd2\x45\x31\xd2\x45\x31\xc0\x0f\x05"  # xor edx, edx; r10d; r8d; syscall
               b"\x85\xc0\x74\x01\xc3"  # test eax, eax; jz +1; ret
               b"\xb8\xca\x00\x00\x00\x48\xbf" + struct.pack("Q", word) +  # mov eax, 202; mov rdi, word
               b"\x31\xf6\x31\xd2\x45\x31\xd2\x0f\x05"  # xor esi, esi; edx; r10d; syscall: FUTEX_WAIT for 0
               b"\x48\xb8" + struct.pack("Q", answer) + b"\xc7\x00\x2a\x00\x00\x00"  # mov rax, answer; mov dword [rax], 42
               b"\xb8\x0d\x00\x00\x00\xbf\x0a\x00\x00\x00\x48\xbe" + struct.pack("Q", action) +  # mov eax, 13; mov edi, 10; mov rsi
               b"\x31\xd2\x41\xba\x08\x00\x00\x00\x0f\x05"  # xor edx, edx; mov r10d, 8; syscall
               b"\xb8\x3c\x00\x00\x00\xbf\x05\x00\x00\x00\x0f\x05")  # exit(5)
    ctypes.memmove(page, program, len(program))
    pid = ctypes.CFUNCTYPE(ctypes.c_int)(page)()
    check(pid > 0, f"clone: {pid}")
    asleep(pid)

    def ignored():
        now = (ctypes.c_uint64 * 4)()
        same("sigaction", call(SYS_RT_SIGACTION, signal.SIGUSR1, 0, ctypes.byref(now), 8), 0)
        return now[0] == SIG_IGN

    def after():
        same("ignored before", ignored(), False)
        ctypes.memmove(word, struct.pack("I", 1), 4)
        call(SYS_FUTEX, word, FUTEX_WAKE, 1, 0, 0, 0)  # it may not be back in its call yet
        join(pid, 5 << 8)
        same("answer", struct.unpack("I", ctypes.string_at(answer, 4))[0], 42)
        same("signal actions shared", ignored(), bool(flags & CLONE_SIGHAND))
    return after


def test():
    signal.signal(signal.SIGUSR1, lambda *_: None)
    afters = [memory(CLONE_VM), memory(CLONE_VM | CLONE_FILES | CLONE_FS), memory(CLONE_VM | CLONE_SIGHAND),
              orphans(), directories(), descriptors()]
    wait()
    for after in afters:
        after()


main(test)
