"""Holds what no snapshot can be taken of: the argument says what. It must not notice that somebody tried."""
import mmap
import socket
import struct

from kind import *

SYS_UNSHARE, SYS_IO_SETUP, SYS_MSGGET, SYS_SEMGET, SYS_SHMGET, SYS_SHMAT = 272, 206, 68, 64, 29, 30
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x20000, 0x04000000, 0x40000000


def md5():
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    key = struct.pack("HH4s120xBBHI80s", socket.AF_INET, 0, bytes([127, 0, 0, 9]), 0, 0, 3, 0, b"key")
    server.setsockopt(socket.IPPROTO_TCP, 14, key)  # TCP_MD5SIG
    server.listen()
    return lambda: server.close()


def mptcp():
    server = socket.socket(proto=262)
    server.bind(("127.0.0.1", 0))
    server.listen()
    client = socket.socket(proto=262)
    client.connect(server.getsockname())
    conn, _ = server.accept()

    def after():
        client.send(b"hello")
        same("MPTCP", conn.recv(10), b"hello")
    return after


def corked():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    s.sendto(b"first half, ", socket.MSG_MORE, s.getsockname())

    def after():
        s.sendto(b"second half", s.getsockname())
        same("corked", s.recv(100), b"first half, second half")
    return after


def unread():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    s.sendto(struct.pack("IHHII", 32, 18, 0x301, 1, 0) + bytes(16), (0, 0))  # RTM_GETLINK, all
    return lambda: check(s.recv(65536), "no answer")


def watch():
    """A watched FIFO that is deleted."""
    fd = ok(libc.inotify_init1(0o4000))
    os.mkfifo(path("watched"))
    keep = os.open(path("watched"), os.O_RDWR)
    ok(libc.inotify_add_watch(fd, path("watched").encode(), 0x100))  # IN_CREATE
    os.unlink(path("watched"))
    return lambda: os.close(keep)


def events():
    """Events that wait until GO."""
    fd = ok(libc.inotify_init1(0o4000))
    ok(libc.inotify_add_watch(fd, DIR.encode(), 0x100))  # IN_CREATE
    write("watched", "")
    return lambda: check(b"watched" in os.read(fd, 4096), "events")


def descriptor():
    """A file that tells of a descriptor."""
    fd = os.open("/proc/self/fdinfo/0", os.O_RDONLY)
    return lambda: check(os.read(fd, 100), "fdinfo")


def reading():
    """A directory of a memory file system that is being read."""
    for i in range(100):
        open(f"/dev/shm/{i:040}", "w").close()
    fd = os.open("/dev/shm", os.O_RDONLY)
    buf = ctypes.create_string_buffer(1000)
    check(call(217, fd, buf, 1000) > 0, "getdents")
    return lambda: check(call(217, fd, buf, 1000) > 0, "the rest")


def aio():
    """A request that waits for a pipe until GO."""
    context = ctypes.c_ulong()
    same("io_setup", call(SYS_IO_SETUP, 16, ctypes.byref(context)), 0)
    out, into = os.pipe()
    request = ctypes.create_string_buffer(struct.pack("QIIHhIQ", 1, 0, 0, 5, 0, out, 1), 64)  # IOCB_CMD_POLL for POLLIN
    same("io_submit", call(209, context.value, 1, ctypes.byref(ctypes.c_void_p(ctypes.addressof(request)))), 1)

    def after():
        os.write(into, b"x")
        event = ctypes.create_string_buffer(32)
        same("io_getevents", call(208, context.value, 1, 1, event, 0), 1)
        same("io_destroy", call(207, context.value), 0)
    return after


def key():
    """A key in the session's keyring."""
    same("invocation id", call(248, b"user", b"invocation_id", b"x", 1, -3) > 0, True)  # add_key
    number = call(248, b"user", b"a secret", b"payload", 7, -3)
    buf = ctypes.create_string_buffer(100)

    def after():
        same("keyctl", call(250, 11, number, buf, 100), 7)  # KEYCTL_READ
        same("payload", buf.value, b"payload")
        call(250, 3, number)  # KEYCTL_REVOKE
    return after


def made(number, *args):
    """A file descriptor that a system call makes."""
    def hold():
        fd = call(number, *args)
        check(fd >= 0, f"call {number}: {fd}")
        return lambda: os.fstat(fd)
    return hold


def perf():
    """A counter of the instructions of our own, outside of the kernel."""
    attr = struct.pack("IIQQQQQ", 1, 112, 1, 0, 0, 0, 1 << 5 | 1 << 6).ljust(112, b"\0")  # PERF_TYPE_SOFTWARE, exclude_kernel, exclude_hv
    return made(298, attr, 0, -1, -1, 0)()


def secret():
    fd = ok(libc.syscall(447, 0))
    os.ftruncate(fd, 4096)
    ok(libc.mmap(None, 4096, 3, MAP_SHARED, fd, 0))
    os.close(fd)
    return lambda: None


def shm():
    number = call(SYS_SHMGET, 0, 4096, 0o1600)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(number, None, 0)
    call(31, number, 0, 0)  # IPC_RMID
    ctypes.memmove(address, b"shared", 6)
    return lambda: same("shm", ctypes.string_at(address, 6), b"shared")


def semaphores():
    number = call(SYS_SEMGET, 0, 1, 0o1600)
    check(number >= 0, f"semget: {number}")
    call(66, number, 0, 16, 42)  # SETVAL

    def after():
        same("semaphore", call(66, number, 0, 12, 0), 42)  # GETVAL
        call(66, number, 0, 0, 0)
    return after


def messages():
    number = call(SYS_MSGGET, 0, 0o1600)
    check(number >= 0, f"msgget: {number}")
    text = ctypes.create_string_buffer(b"\1" + bytes(7) + b"text", 12)
    same("msgsnd", call(69, number, text, 4, 0), 0)

    def after():
        same("msgrcv", call(70, number, text, 4, 0, 0), 4)
        call(71, number, 0, 0)
    return after


def namespace(flag):
    def hold():
        pid = fork(lambda: same("unshare", call(SYS_UNSHARE, flag), 0) or write("made", "") or go())
        until(lambda: there("made"), "namespace")
        return lambda: join(pid)
    return hold


def vfork():
    """A process that waits for its child, which shares its memory: by machine code, it waits in futex(2) and exits."""
    word = mmap.mmap(-1, 4096)
    address = ctypes.addressof((ctypes.c_int).from_buffer(word))
    code = libc.mmap(None, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    program = (b"\x5e\xb8\x3a\x00\x00\x00\x0f\x05\x56"  # pop rsi; mov eax, 58; syscall; push rsi: the child returns nowhere
               b"\x85\xc0\x74\x01\xc3"  # test eax, eax; jz +1; ret
               b"\xb8\xca\x00\x00\x00\x48\xbf" + struct.pack("Q", address) +  # mov eax, 202; mov rdi, address
               b"\x31\xf6\x31\xd2\x45\x31\xd2\x0f\x05"  # xor esi, esi; edx; r10d; syscall: FUTEX_WAIT for 0
               b"\xb8\x3c\x00\x00\x00\xbf\x05\x00\x00\x00\x0f\x05")  # exit(5)
    ctypes.memmove(code, program, len(program))
    pid = fork(lambda: join(ctypes.CFUNCTYPE(ctypes.c_int)(code)(), 5 << 8))
    until(lambda: state(pid) == "D", "vfork")

    def after():
        until(lambda: call(202, address, 1, 1, 0, 0, 0) == 1, "child in futex")
        same("word", word[:4], bytes(4))
        join(pid)
    return after


def twins(flag):
    """Two processes that share what clone(2) says, by machine code: the child waits in futex(2) and exits."""
    def hold():
        word = mmap.mmap(-1, 4096)
        address = ctypes.addressof((ctypes.c_int).from_buffer(word))
        code = libc.mmap(None, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        program = (b"\xb8\x38\x00\x00\x00" b"\xbf" + struct.pack("I", flag | signal.SIGCHLD) +  # mov eax, 56; mov edi, flags
                   b"\x31\xf6\x31\xd2\x45\x31\xd2\x45\x31\xc0\x0f\x05"  # xor esi, esi; edx; r10d; r8d; syscall
                   b"\x85\xc0\x74\x01\xc3"  # test eax, eax; jz +1; ret
                   b"\xb8\xca\x00\x00\x00\x48\xbf" + struct.pack("Q", address) +  # mov eax, 202; mov rdi, address
                   b"\x31\xf6\x31\xd2\x45\x31\xd2\x0f\x05"  # xor esi, esi; edx; r10d; syscall: FUTEX_WAIT for 0
                   b"\xb8\x3c\x00\x00\x00\xbf\x05\x00\x00\x00\x0f\x05")  # exit(5)
        ctypes.memmove(code, program, len(program))
        pid = ctypes.CFUNCTYPE(ctypes.c_int)(code)()
        check(pid > 0, f"clone: {pid}")
        asleep(pid)

        def after():
            same("word", word[:4], bytes(4))
            same("wake", call(202, address, 1, 1, 0, 0, 0), 1)
            join(pid, 5 << 8)
        return after
    return hold


def mounted():
    os.mkdir(path("mount"))
    if libc.mount(b"none", path("mount").encode(), b"overlay", 0, b"lowerdir=/bin:/etc"):
        fail("mount: " + os.strerror(ctypes.get_errno()))
    return lambda: ok(libc.umount(path("mount").encode()))


def traced():
    pid = fork(lambda: libc.ptrace(0, 0, 0, 0) or os.kill(os.getpid(), signal.SIGSTOP))
    os.waitpid(pid, os.WUNTRACED)
    def after():
        same("tracee", state(pid), "t")
        libc.ptrace(7, pid, 0, 0)
        join(pid)
    return after


def full():
    """A terminal whose output is full until GO: then it waits no longer."""
    import tty
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    text = b""
    while True:
        try:
            text += b"x" * os.write(slave, b"x" * 1000)
        except BlockingIOError:
            break

    def after():
        read = b""
        while len(read) < len(text):
            read += os.read(master, 10000)
        same("output", read, text)
    return after


def dispatched():
    """A thread whose system calls are given back to it, as long as a byte says so."""
    selector = ctypes.c_char(b"\0")
    same("prctl", call(157, 59, 1, 0, 0, ctypes.addressof(selector)), 0)  # PR_SET_SYSCALL_USER_DISPATCH
    return lambda: same("selector", selector.value, b"\0") or same("prctl", call(157, 59, 0, 0, 0, 0), 0)


def hugetlb():
    """A mapping of huge pages, of which there need be none."""
    MAP_HUGETLB = 0x40000
    address = libc.mmap(None, 2 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0)
    check(address != ctypes.c_void_p(-1).value, "mmap")
    return lambda: None


holds = {f.__name__: f for f in (md5, mptcp, corked, unread, watch, events, descriptor, reading, aio, key, perf, secret, shm, semaphores, messages,
                                 mounted, traced, vfork, full, dispatched, hugetlb)}
holds |= {"uts namespace": namespace(CLONE_NEWUTS), "mount namespace": namespace(CLONE_NEWNS), "net namespace": namespace(CLONE_NEWNET),
          "io_uring": made(425, 4, bytes(120)), "userfaultfd": made(323, 1), "secret memory": made(447, 0)}


def test():
    after = holds[sys.argv[1]]()
    wait()
    after()


main(test)
