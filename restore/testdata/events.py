"""eventfd, signalfd, memfd."""
import fcntl
import mmap
import struct

from kind import *

SIGNALFD4 = 289


def signalfd(signals, flags=0):
    mask = ctypes.c_ulong(sum(1 << (s - 1) for s in signals))
    return call(SIGNALFD4, -1, ctypes.byref(mask), 8, flags)


def test():
    libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    counter = os.eventfd(7)
    semaphore = os.eventfd(3, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
    zero = os.eventfd(0)
    full = os.eventfd(0, os.EFD_NONBLOCK)
    os.eventfd_write(full, 0xFFFFFFFFFFFFFFFE)
    waiting = fork(lambda: same("a waiting reader", os.eventfd_read(zero), 5))

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN})
    sfd = signalfd({signal.SIGUSR1, signal.SIGRTMIN}, 0o4000)
    other = signalfd({signal.SIGUSR2})
    os.kill(os.getpid(), signal.SIGUSR1)
    libc.sigqueue(os.getpid(), signal.SIGRTMIN, 321)

    plain = os.memfd_create("plain", 0)
    os.ftruncate(plain, 4096)
    os.write(plain, b"memory")
    sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.write(sealed, b"never to change" * 1000)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, seals)
    reading = os.open(f"/proc/self/fd/{sealed}", os.O_RDONLY)
    os.lseek(reading, 6, os.SEEK_SET)
    mapped = os.memfd_create("mapped")
    os.ftruncate(mapped, 1 << 20)
    area = mmap.mmap(mapped, 1 << 20)
    area[4096:4100] = b"area"
    sparse = os.memfd_create("sparse")
    os.ftruncate(sparse, 10 << 30)
    os.pwrite(sparse, b"far", 9 << 30)
    only = mmap.mmap(plain, 4096, flags=mmap.MAP_PRIVATE)
    os.close(os.dup(plain))
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in (plain, sealed, mapped)]
    flags = [(fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETFD))
             for fd in (counter, semaphore, full, sfd, other, plain, sealed, reading)]
    asleep(waiting)

    wait()

    same("flags", [(fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETFD))
                   for fd in (counter, semaphore, full, sfd, other, plain, sealed, reading)], flags)
    same("counter", os.eventfd_read(counter), 7)
    os.eventfd_write(counter, 2)
    same("counter, after", os.eventfd_read(counter), 2)
    same("semaphore", [os.eventfd_read(semaphore) for _ in range(3)], [1, 1, 1])
    check(not readable(semaphore), "semaphore at zero")
    same("full", os.eventfd_read(full), 0xFFFFFFFFFFFFFFFE)
    os.eventfd_write(zero, 5)
    join(waiting)

    first = os.read(sfd, 128)
    same("first", struct.unpack_from("I", first), (signal.SIGUSR1,))
    second = os.read(sfd, 128)
    same("second", (struct.unpack_from("I", second)[0], struct.unpack_from("Q", second, 48)[0]), (signal.SIGRTMIN, 321))
    check(not readable(sfd) and not readable(other), "no further signals")
    os.kill(os.getpid(), signal.SIGUSR2)
    same("later", struct.unpack_from("I", os.read(other, 128)), (signal.SIGUSR2,))

    same("names", [os.readlink(f"/proc/self/fd/{fd}") for fd in (plain, sealed, mapped)], names)
    same("plain", (os.pread(plain, 6, 0), os.lseek(plain, 0, os.SEEK_CUR)), (b"memory", 6))
    os.write(plain, b" goes on")
    same("private mapping", only[:14], b"memory goes on")
    same("seals", fcntl.fcntl(sealed, fcntl.F_GET_SEALS), seals)
    same("seals of one without", fcntl.fcntl(plain, fcntl.F_GET_SEALS), fcntl.F_SEAL_SEAL)
    same("sealed", os.pread(sealed, 20000, 0), b"never to change" * 1000)
    same("own offset", os.read(reading, 9), b"to change")
    try:
        os.pwrite(sealed, b"x", 0)
        fail("a sealed memfd can be written")
    except PermissionError:
        pass
    same("area", (area[4096:4100], os.pread(mapped, 4, 4096)), (b"area", b"area"))
    os.pwrite(mapped, b"from the file", 8192)
    same("area, from the file", area[8192:8205], b"from the file")
    same("sparse", (os.fstat(sparse).st_size, os.pread(sparse, 3, 9 << 30)), (10 << 30, b"far"))
    check(os.fstat(sparse).st_blocks < 1000, "sparse memfd has become solid")


main(test)
