"""TCP sockets in every state that two ends within the instance can have, and what lies in their queues."""
import errno
import socket
import struct

from kind import *

V4, V6 = socket.AF_INET, socket.AF_INET6
TCP, SOL = socket.IPPROTO_TCP, socket.SOL_SOCKET
TCP_INFO, TCP_CONGESTION, TCP_USER_TIMEOUT, SO_PEERNAME, SO_BUF_LOCK, SIOCATMARK = 11, 13, 18, 28, 72, 0x8905
ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE, CLOSE_WAIT, LISTEN = 1, 4, 5, 7, 8, 10


def listener(family=V4, address="127.0.0.1", backlog=5, port=0, protocol=0, **options):
    s = socket.socket(family, socket.SOCK_STREAM, protocol)
    for name in options:
        s.setsockopt(SOL, getattr(socket, name), options[name])
    s.bind((address, port))
    s.listen(backlog)
    return s


def connect(l, family=None, address=None):
    c = socket.socket(family or l.family)
    name = l.getsockname()
    c.connect((address or name[0], name[1]))
    s, _ = l.accept()
    return c, s


def state(s):
    return s.getsockopt(TCP, TCP_INFO, 8)[0]


def names(*sockets):
    return [(s.getsockname(), s.getpeername()) for s in sockets]


def all_of(s, size):
    s.settimeout(20)
    got = b""
    while len(got) < size:
        data = s.recv(min(size - len(got), 1 << 20))
        if not data:
            break
        got += data
    return got


def events(s):
    p = select.poll()
    p.register(s, select.POLLIN | select.POLLPRI | select.POLLRDHUP)
    return sum(e for _, e in p.poll(0))


def at_mark(s):
    n = ctypes.c_int(0)
    ok(libc.ioctl(s.fileno(), SIOCATMARK, ctypes.byref(n)), "SIOCATMARK")
    return n.value


def error(action):
    try:
        action()
    except OSError as e:
        return e.errno
    return 0


def pattern(size, seed):
    return bytes((i * 7 + seed) & 0xff for i in range(251)) * (size // 251 + 1)


def stuff(s, data):
    """Send as much as there is room for."""
    s.setblocking(False)
    sent = 0
    try:
        while sent < len(data):
            sent += s.send(data[sent:sent + 65536])
    except BlockingIOError:
        pass
    s.setblocking(True)
    return sent


def quiet(s):
    return not readable(s.fileno())


def test():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    def child():
        """Sleeps in recv and in accept."""
        own = listener()
        write("port", str(own.getsockname()[1]))
        c, _ = own.accept()
        while True:
            data = c.recv(100)
            if not data:
                break
            c.send(b"echo " + data)
    pid = fork(child)
    until(lambda: there("port"), "port")
    asleep(pid)
    with open(path("port")) as f:
        port = int(f.read())

    l4, l6, dual = listener(), listener(V6, "::1"), listener(V6, "::", backlog=77)
    pairs = {"IPv4": connect(l4), "IPv6": connect(l6), "mapped": connect(dual, V6, "::ffff:127.0.0.1"), "mixed": connect(dual, V4, "127.0.0.1"),
             "two addresses": connect(dual, V4, "127.0.0.77")}
    for c, s in pairs.values():
        c.send(b"request")
        s.send(b"answer")
    empty = connect(l4)
    big = connect(l4)
    blob = pattern(8 << 20, 1)
    sent = [stuff(s, blob) for s in big]
    check(min(sent) > 50000, f"little room: {sent}")
    huge = connect(l4)
    for s in huge:
        for o in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            s.setsockopt(SOL, o, 2 << 20)
    sent_huge = [stuff(s, blob) for s in huge]

    half, half_answered, both, unread = connect(l4), connect(l6), connect(l4), connect(l4)
    half[0].send(b"the end")
    half[0].shutdown(socket.SHUT_WR)
    half[1].send(b"go on")
    half_answered[0].shutdown(socket.SHUT_WR)
    same("read to the end", half_answered[1].recv(10), b"")
    both[0].shutdown(socket.SHUT_WR)
    until(lambda: state(both[1]) == CLOSE_WAIT, "CLOSE_WAIT")
    both[1].shutdown(socket.SHUT_WR)
    until(lambda: state(both[1]) == CLOSE, "both closed")
    both_names = [s.getsockopt(SOL, SO_PEERNAME, 16) for s in both]
    unread[1].send(b"last words")
    unread[1].shutdown(socket.SHUT_WR)
    unread[0].shutdown(socket.SHUT_WR)
    until(lambda: state(unread[0]) == CLOSE, "closed with something to read")
    deaf = connect(l4)
    deaf[0].shutdown(socket.SHUT_RD)

    left, left_full = connect(l4), connect(l4)
    left[1].send(b"goodbye")
    left[1].close()
    reset, reset_told = connect(l4), connect(l4)
    for c, s in (reset, reset_told):
        s.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        until(lambda: events(c) & select.POLLERR, "reset")
    same("reset", error(lambda: reset_told[0].recv(1)), errno.ECONNRESET)
    refused = socket.socket(V4)
    refused.setblocking(False)
    refused.connect_ex(("127.0.0.1", 1))
    until(lambda: events(refused) & select.POLLERR, "refused")

    urgent, urgent_read, urgent_inline, urgent_first = (connect(l4) for _ in range(4))
    urgent_inline[1].setsockopt(SOL, socket.SO_OOBINLINE, 1)
    for c, s in (urgent, urgent_read, urgent_inline):
        c.send(b"before")
        c.send(b"!", socket.MSG_OOB)
        c.send(b"after")
        until(lambda: events(s) & select.POLLPRI, "urgent byte")
    urgent_first[0].send(b"?after", socket.MSG_OOB)
    urgent_first[0].send(b"nothing special")
    until(lambda: events(urgent_first[1]) & select.POLLPRI, "urgent byte at the end")
    same("urgent byte", urgent_read[1].recv(1, socket.MSG_OOB), b"!")

    unconnected, bound = socket.socket(V4), socket.socket(V6)
    bound.bind(("::1", 0))
    group = [listener(SO_REUSEPORT=1, backlog=50)]
    group += [listener(SO_REUSEPORT=1, backlog=50, port=group[0].getsockname()[1]) for _ in range(2)]
    reuse = listener(SO_REUSEADDR=1)
    reuse_pair = connect(reuse)
    late = listener()
    late_pair = connect(late)
    late.close()  # its connection still has its port
    try:
        mptcp = listener(protocol=262)
        mptcp_pair = connect(mptcp)
    except OSError:
        mptcp = None
    waiting_at = listener()
    waiting = [socket.create_connection(waiting_at.getsockname()) for _ in range(3)]

    tuned = connect(l4)
    t = tuned[0]
    t.setsockopt(SOL, socket.SO_KEEPALIVE, 1)
    t.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 5))
    t.setsockopt(SOL, socket.SO_RCVBUF, 40000)
    t.setsockopt(SOL, socket.SO_MARK, 5)
    t.setsockopt(SOL, socket.SO_BINDTODEVICE, b"lo\0")
    t.setsockopt(TCP, socket.TCP_NODELAY, 1)
    t.setsockopt(TCP, socket.TCP_KEEPIDLE, 55)
    t.setsockopt(TCP, socket.TCP_KEEPINTVL, 5)
    t.setsockopt(TCP, socket.TCP_KEEPCNT, 3)
    t.setsockopt(TCP, TCP_USER_TIMEOUT, 12345)
    t.setsockopt(TCP, TCP_CONGESTION, b"reno")
    t.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
    t.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
    l4.setsockopt(TCP, socket.TCP_DEFER_ACCEPT, 3)
    l4.setsockopt(TCP, socket.TCP_FASTOPEN, 9)
    wanted = [(t, SOL, o) for o in (socket.SO_KEEPALIVE, socket.SO_RCVBUF, socket.SO_SNDBUF, socket.SO_MARK, SO_BUF_LOCK, socket.SO_REUSEADDR)]
    wanted += [(t, TCP, o) for o in (socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, TCP_USER_TIMEOUT)]
    wanted += [(t, socket.IPPROTO_IP, o) for o in (socket.IP_TTL, socket.IP_TOS)]
    wanted += [(l4, TCP, socket.TCP_DEFER_ACCEPT), (l4, TCP, socket.TCP_FASTOPEN), (reuse, SOL, socket.SO_REUSEADDR),
               (reuse_pair[1], SOL, socket.SO_REUSEADDR), (late_pair[1], SOL, socket.SO_REUSEADDR), (group[2], SOL, socket.SO_REUSEPORT)]
    tuning = [s.getsockopt(level, o) for s, level, o in wanted]
    bare = [s.getsockname() for s in (l4, l6, dual, unconnected, bound, reuse)]
    connections = [s for p in (*pairs.values(), empty, big, half, deaf, tuned) for s in p]
    named = names(*connections)
    unconnected.setsockopt(TCP, socket.TCP_MAXSEG, 1000)

    wait()

    same("names", names(*connections), named)
    same("names of others", [s.getsockname() for s in (l4, l6, dual, unconnected, bound, reuse)], bare)
    for what, (c, s) in pairs.items():
        same(what, [s.recv(100), c.recv(100)], [b"request", b"answer"])
        check(quiet(c) and quiet(s), what + ": more to read")
        c.send(b"again")
        same(what + " again", s.recv(100), b"again")
    empty[0].send(b"something")
    same("empty", empty[1].recv(100), b"something")
    began = time.monotonic()
    for what, pair, counts in (("big", big, sent), ("huge", huge, sent_huge)):
        for i in range(2):
            want = blob[:counts[i]]
            got = all_of(pair[1 - i], len(want))
            check(got == want, f"{what} {i}: {len(got)} of {len(want)} bytes, equal: {got == want[:len(got)]}")
        for i in range(2):
            t = thread(pair[i].sendall, blob)
            check(all_of(pair[1 - i], len(blob)) == blob, what + " again")
            join_thread(t)
    within("time for the full ones", time.monotonic() - began, 0, 8)

    same("states of the half closed", (state(half[0]), state(half[1])), (FIN_WAIT2, CLOSE_WAIT))
    same("half closed", [half[1].recv(100), half[1].recv(100), half[0].recv(100)], [b"the end", b"", b"go on"])
    half[1].send(b"more")
    same("the other half", half[0].recv(100), b"more")
    same("half closed, sending", error(lambda: half[0].send(b"x")), errno.EPIPE)
    half[1].close()
    same("both halves", half[0].recv(100), b"")
    same("half answered", half_answered[1].recv(10), b"")
    half_answered[1].send(b"answer")
    half_answered[1].close()
    same("half answered, answer", all_of(half_answered[0], 100), b"answer")
    same("closed ones", [(state(s), s.recv(1), error(lambda: s.send(b"x"))) for s in both], [(CLOSE, b"", errno.EPIPE)] * 2)
    same("names of the closed", [s.getsockopt(SOL, SO_PEERNAME, 16) for s in both], both_names)
    same("unread", [unread[0].recv(100), unread[0].recv(100), unread[1].recv(10)], [b"last words", b"", b""])
    same("deaf", deaf[0].recv(10), b"")
    deaf[0].send(b"but not mute")
    same("from the deaf", deaf[1].recv(100), b"but not mute")
    same("left", [left[0].recv(100), left[0].recv(100)], [b"goodbye", b""])
    same("reset", [error(lambda: reset[0].recv(1)), error(lambda: reset[0].recv(1)), state(reset[0])], [errno.ECONNRESET, 0, CLOSE])
    same("reset, told", (error(lambda: reset_told[0].recv(1)), reset_told[0].recv(1)), (0, b""))
    check(events(refused) & select.POLLERR, "the refused one has forgotten that")

    for what, pair in (("urgent", urgent), ("urgent, read", urgent_read)):
        s = pair[1]
        same(what + ": events", bool(events(s) & select.POLLPRI), pair is urgent)
        same(what + ": before", (at_mark(s), s.recv(100), at_mark(s)), (0, b"before", 1))
        if pair is urgent:
            same(what, s.recv(1, socket.MSG_OOB), b"!")
        else:
            same(what + ": again", error(lambda: s.recv(1, socket.MSG_OOB)), errno.EINVAL)
        same(what + ": after", s.recv(100), b"after")
    s = urgent_inline[1]
    same("urgent inline", [s.recv(100), at_mark(s), s.recv(1), s.recv(100)], [b"before", 1, b"!", b"after"])
    s = urgent_first[1]
    same("urgent at the end", [s.recv(100), s.recv(1, socket.MSG_OOB), all_of(s, 15)], [b"?afte", b"r", b"nothing special"])

    same("own segment size", unconnected.getsockopt(TCP, socket.TCP_MAXSEG), 1000)
    unconnected.connect(bare[0])
    bound.listen()
    connect(bound)
    clients = [socket.create_connection(group[0].getsockname()) for _ in range(30)]
    count = 0
    for s in group:
        s.setblocking(False)
        while error(lambda: s.accept()) == 0:
            count += 1
    same("accepted by the group", count, 30)
    another = socket.socket(V4)
    another.setsockopt(SOL, socket.SO_REUSEADDR, 1)
    same("a port that listens", error(lambda: another.bind(reuse.getsockname())), errno.EADDRINUSE)
    reuse.close()
    another.bind(bare[5])
    another.listen()
    connect(another)
    for c, s in (reuse_pair, late_pair):
        c.send(b"without a listener")
        same("without a listener", s.recv(100), b"without a listener")
    connect(l6)
    connect(dual, V6, "::1")
    if mptcp:
        mptcp_pair[0].send(b"by MPTCP's listener")
        same("by MPTCP's listener", mptcp_pair[1].recv(100), b"by MPTCP's listener")
        connect(mptcp)
        same("protocol", mptcp.getsockopt(SOL, 38), 262)
    for i, c in enumerate(waiting):
        c.send(b"%d" % i)
    served = [waiting_at.accept()[0] for _ in waiting]
    same("those who waited", sorted(s.getpeername() for s in served), sorted(c.getsockname() for c in waiting))
    same("what they say", sorted(s.recv(10) for s in served), [b"0", b"1", b"2"])
    waiting_at.setblocking(False)
    same("no more wait", error(lambda: waiting_at.accept()), errno.EAGAIN)

    same("tuning", [s.getsockopt(level, o) for s, level, o in wanted if s.fileno() >= 0], [v for v, w in zip(tuning, wanted) if w[0].fileno() >= 0])
    within("segment size", tuned[0].getsockopt(TCP, socket.TCP_MAXSEG), 20000, 70000)
    same("congestion control", tuned[0].getsockopt(TCP, TCP_CONGESTION, 16).rstrip(b"\0"), b"reno")
    same("linger", struct.unpack("ii", tuned[0].getsockopt(SOL, socket.SO_LINGER, 8)), (1, 5))
    same("device", tuned[0].getsockopt(SOL, socket.SO_BINDTODEVICE, 16), b"lo\0")
    tuned[0].send(b"tuned")
    same("tuned", tuned[1].recv(10), b"tuned")

    c = socket.create_connection(("127.0.0.1", port))
    c.send(b"hello")
    same("child", c.recv(100), b"echo hello")
    c.close()
    join(pid)


main(test)
