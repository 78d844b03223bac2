"""Terminals: a session on a pty, its settings, size, foreground group, and input that nobody has read yet."""
import fcntl
import pty
import struct
import termios
import tty

from kind import *

TIOCGPTN, TIOCSPTLCK, TIOCGSID, TIOCPKT = 0x80045430, 0x40045431, 0x5429, 0x5420


def size(fd):
    return struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))


def index(fd):
    return struct.unpack("I", fcntl.ioctl(fd, TIOCGPTN, bytes(4)))[0]


def read(fd, n):
    """Exactly n bytes, if they come."""
    data = b""
    end = time.monotonic() + 5
    while len(data) < n and time.monotonic() < end:
        if select.select([fd], [], [], 0.1)[0]:
            data += os.read(fd, n - len(data))
    return data


def test():
    raw_m, raw_s = os.openpty()
    tty.setraw(raw_s)
    fcntl.ioctl(raw_s, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 7, 8))
    os.write(raw_m, b"typed, not read\x03\x04")
    os.write(raw_s, b"printed, not read")
    line_m, line_s = os.openpty()
    settings = termios.tcgetattr(line_s)
    settings[3] &= ~termios.ECHO
    settings[6][termios.VINTR] = b"\x07"
    termios.tcsetattr(line_s, termios.TCSANOW, settings)
    os.write(line_m, b"a whole line\nand a part")
    os.write(line_s, b"output\n")
    packet_m, packet_s = os.openpty()
    fcntl.ioctl(packet_m, TIOCPKT, struct.pack("i", 1))
    hung_m, hung_s = os.openpty()
    os.write(hung_s, b"bye")
    os.close(hung_s)
    dead_m, dead_s = os.openpty()
    os.close(dead_m)

    shell, job = os.openpty()
    name = os.ttyname(job)
    signals = os.pipe()
    told = os.pipe()

    def session():
        os.setsid()
        fcntl.ioctl(job, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        background = fork(lambda: os.setpgid(0, 0) or until(lambda: there("END"), "END"))

        def foreground():
            os.setpgid(0, 0)
            os.tcsetpgrp(job, os.getpgid(0))
            signal.signal(signal.SIGINT, lambda *_: os.write(signals[1], b"I"))
            signal.signal(signal.SIGWINCH, lambda *_: os.write(signals[1], b"W"))
            own = os.open("/dev/tty", os.O_RDWR)
            os.write(told[1], b"r")
            while True:
                line = os.read(job, 100)
                if line == b"end\n":
                    break
                os.write(own, b"got " + line)
        pid = fork(foreground)
        join(pid)
        os.tcsetpgrp(job, os.getpgid(0))
        os.write(told[1], b"s")
        join(background)
    pid = fork(session)
    os.read(told[0], 1)
    with open(f"/proc/{pid}/stat") as f:
        number = f.read().rpartition(")")[2].split()[4]
    group = os.tcgetpgrp(shell)
    names = [os.ttyname(fd) for fd in (raw_s, line_s, packet_s, job)]
    indexes = [index(fd) for fd in (raw_m, line_m, packet_m, hung_m, shell)]
    attributes = {fd: termios.tcgetattr(fd) for fd in (raw_s, line_s, packet_s, job)}
    time.sleep(0.2)

    wait()

    same("names", [os.ttyname(fd) for fd in (raw_s, line_s, packet_s, job)], names)
    same("indexes", [index(fd) for fd in (raw_m, line_m, packet_m, hung_m, shell)], indexes)
    for fd, want in attributes.items():
        same(f"settings of {fd}", termios.tcgetattr(fd), want)
    same("size", size(raw_m), (33, 101, 7, 8))
    same("raw input", read(raw_s, 17), b"typed, not read\x03\x04")
    same("raw output", read(raw_m, 17), b"printed, not read")
    same("line", os.read(line_s, 100), b"a whole line\n")
    check(not readable(line_s), "a part of a line can be read")
    os.write(line_m, b" more\n")
    same("the part and the rest", os.read(line_s, 100), b"and a part more\n")
    same("line output", read(line_m, 8), b"output\r\n")
    os.write(packet_s, b"p")
    same("packet mode", os.read(packet_m, 10)[-2:], b"\0p")
    same("after the slave's end", read(hung_m, 3), b"bye")
    try:
        os.read(hung_m, 1)
        fail("a master without slave can be read")
    except OSError as e:
        same("master without slave", e.errno, 5)
    same("slave without master", os.read(dead_s, 1), b"")

    with open(f"/proc/{pid}/stat") as f:
        same("controlling terminal", f.read().rpartition(")")[2].split()[4], number)
    same("foreground", os.tcgetpgrp(shell), group)
    same("session", struct.unpack("i", fcntl.ioctl(shell, TIOCGSID, bytes(4)))[0], pid)
    os.write(shell, b"hi\n")
    same("echo and answer", read(shell, 12), b"hi\r\ngot hi\r\n")
    os.write(shell, b"\x03")
    same("interrupt", read(signals[0], 1), b"I")
    same("its echo", read(shell, 2), b"^C")
    fcntl.ioctl(shell, termios.TIOCSWINSZ, struct.pack("4H", 20, 30, 0, 0))
    same("resize", read(signals[0], 1), b"W")
    os.write(shell, b"end\n")
    same("session goes on", read(told[0], 1), b"s")
    write("END", "end\n")
    join(pid)
    fresh_m, fresh_s = os.openpty()
    check(index(fresh_m) not in indexes, "a pty twice")
    again = os.open(name, os.O_RDWR | os.O_NOCTTY)
    os.write(again, b"!")
    check(read(shell, 6).endswith(b"!"), "reopened by name")


main(test)
