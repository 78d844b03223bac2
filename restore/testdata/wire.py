"""What both ends of connections over a wire share: see outside.py and peer.py."""
import errno
import socket
import struct

from kind import *

HERE, THERE, INSIDE, OUTSIDE = 7000, 7001, ("10.77.7.2", "fd77:7::2"), ("10.77.7.1", "fd77:7::1")
TCP, TCP_INFO, TCP_REPAIR = socket.IPPROTO_TCP, 11, 19
ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING = 1, 2, 4, 5, 7, 8, 9, 11
BLOCK = bytes(i * 7 & 0xff for i in range(251)) * 512  # its length divides no power of two


def state(s):
    return s.getsockopt(TCP, TCP_INFO, 8)[0]


def exactly(s, size):
    got = b""
    while len(got) < size:
        data = s.recv(size - len(got))
        if not data:
            break
        got += data
    return got


def line(s):
    got = b""
    while not got.endswith(b"\n"):
        data = s.recv(1)
        if not data:
            break
        got += data
    return got.decode().strip()


def echo(s):
    """Send back what comes, until it ends."""
    while True:
        data = s.recv(65536)
        if not data:
            break
        s.sendall(data)


def serve(handlers, port):
    """Serve connections: the first line of each says by which handler."""
    l = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)

    def one(s):
        name = line(s)
        handlers[name](s)
        s.close()

    def loop():
        while True:
            thread(one, l.accept()[0])
    thread(loop)


def dial(address, port, name, small=False):
    """Connect to a handler; with small, by a socket that receives little."""
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if small:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
    s.connect((address, port))
    s.sendall(name.encode() + b"\n")
    return s


class Stream:
    """Bytes of which each end knows what comes next. At the end comes how many have been received from the other side."""

    def __init__(self, s):
        self.s, self.sent, self.received = s, 0, 0

    def piece(self):
        at = self.sent % 251
        return BLOCK[at:at + 100003]

    def stuff(self):
        """Send as much as there is room for."""
        self.s.setblocking(False)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            try:
                self.sent += self.s.send(self.piece())
            except BlockingIOError:
                time.sleep(0.01)
        self.s.setblocking(True)

    def send(self, goes_on):
        while goes_on():
            self.sent += self.s.send(self.piece())

    def finish(self, answer=b""):
        self.s.sendall(answer)
        self.s.shutdown(socket.SHUT_WR)

    def receive(self, rest=0):
        """Receive to the end. Returns the last bytes, which are no part of the stream."""
        tail = b""
        while True:
            data = self.s.recv(1 << 20)
            if not data:
                break
            tail += data
            new = tail[:len(tail) - rest]
            at = self.received % 251
            want = BLOCK[at:at + 251] * (len(new) // 251 + 1)
            if new != want[:len(new)]:
                fail(f"wrong bytes after {self.received}")
            self.received += len(new)
            tail = tail[len(new):]
        return tail


def vanish(s):
    """Close a socket so that nobody hears of it."""
    s.setsockopt(TCP, TCP_REPAIR, 1)
    s.close()
