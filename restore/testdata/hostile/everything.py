"""One of everything, in few processes: what a hostile snapshot is made from."""

import ctypes
import fcntl
import mmap
import os
import pty
import select
import signal
import socket
import sys
import threading
import time

from kind import libc, path, ready

kept = []


def child(f):
    pid = os.fork()
    if pid == 0:
        f()
        os._exit(0)
    return pid


def sleeper():
    os.setsid()
    signal.signal(signal.SIGUSR1, lambda *_: None)
    while True:
        time.sleep(3600)


def filtered():
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    libc.prctl(38, 1, 0, 0, 0)
    allow = ctypes.create_string_buffer(bytes([6, 0, 0, 0, 0, 0, 0xFF, 0x7F]))
    program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(allow))
    libc.prctl(22, 2, ctypes.byref(program))
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while True:
        select.select([], [], [], 3600)


child(lambda: os._exit(3))
child(sleeper)
child(filtered)
with open("/dev/shm/file", "w") as f:
    f.write("content")
os.mkdir("/dev/shm/dir")
os.symlink("file", "/dev/shm/link")
os.link("/dev/shm/file", "/dev/shm/dir/other")
os.mkfifo("/dev/shm/fifo")

shared = mmap.mmap(-1, 8192)
shared[:5] = b"hello"
memfd = os.memfd_create("data", os.MFD_ALLOW_SEALING)
os.write(memfd, b"x" * 5000)
kept.append(mmap.mmap(memfd, 4096))
deleted = open(path("gone"), "w+")
deleted.write("gone")
deleted.flush()
os.unlink(path("gone"))
mapped = open("/etc/passwd")
kept.append(mmap.mmap(mapped.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE))
locked = open(path("locked"), "w")
fcntl.flock(locked, fcntl.LOCK_EX)
fcntl.lockf(open(path("posix"), "w"), fcntl.LOCK_EX)

reading, writing = os.pipe()
os.write(writing, b"in the pipe")
fifo = os.open("/dev/shm/fifo", os.O_RDWR | os.O_NONBLOCK)
os.write(fifo, b"in the fifo")
event = os.eventfd(7)
timer = libc.timerfd_create(1, 0)
libc.timerfd_settime(timer, 0, (ctypes.c_int64 * 4)(0, 0, 3600, 0), None)
libc.signalfd(-1, (ctypes.c_uint64 * 1)(1 << 9), 8)
left, right = socket.socketpair()
left.send(b"queued")
socket.send_fds(left, [b"with a file"], [reading])
listener = socket.socket(socket.AF_UNIX)
listener.bind(path("socket"))
listener.listen()
client = socket.socket(socket.AF_UNIX)
client.connect(path("socket"))
datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagram.bind("\0abstract")
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.sendto(b"a datagram", "\0abstract")
epoll = select.epoll()
epoll.register(reading, select.EPOLLIN)
epoll.register(right, select.EPOLLOUT)
master, slave = pty.openpty()
os.write(master, b"typed\n")
os.write(slave, b"shown")

signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
signal.setitimer(signal.ITIMER_REAL, 3600)
libc.timer_create(1, None, (ctypes.c_int64 * 1)())
threading.Thread(target=lambda: time.sleep(3600), daemon=True).start()
ready()
while True:
    time.sleep(3600)
