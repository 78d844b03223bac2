"""Connections whose other end is in an instance: the end outside."""
from wire import *


def ping(address):
    """Asks and answers all the time."""
    s = dial(address, HERE, "echo")
    s.setsockopt(TCP, socket.TCP_NODELAY, 1)
    n, worst = 0, 0
    while not there("GO") or n < 100:
        began = time.monotonic()
        n += 1
        s.sendall(b"%08d" % n)
        same("ping", exactly(s, 8), b"%08d" % n)
        worst = max(worst, time.monotonic() - began)
        time.sleep(0.001)
    s.close()
    write("ping-" + address, f"{n} {worst * 1000:.1f} ms")


def duplex(address):
    st = Stream(dial(address, HERE, "duplex"))
    t = thread(st.send, lambda: not there("GO") or st.sent < 100 << 20)
    t2 = thread(lambda: same("duplex", st.receive(16), b"%016d" % st.sent))
    join_thread(t, 120)
    st.finish()
    join_thread(t2)


def full(address):
    st = Stream(dial(address, HERE, "full"))
    st.stuff()

    def after():
        t = thread(lambda: same("full", st.receive(16), b"%016d" % st.sent))
        st.send(lambda: st.sent < 12 << 20)
        st.finish()
        join_thread(t)
    return after


def idle(address):
    s = dial(address, HERE, "echo")

    def after():
        s.sendall(b"hello")
        same("idle", exactly(s, 5), b"hello")
        s.close()
    return after


def close_wait(address, name="close_wait"):
    s = dial(address, HERE, name)
    s.sendall(b"the end")
    s.shutdown(socket.SHUT_WR)
    return lambda: same(name, exactly(s, 100), b"more")


def unread(address):
    return close_wait(address, "unread")


def fin_wait2(address):
    s = dial(address, HERE, "fin_wait2")
    same("fin_wait2", exactly(s, 100), b"the end")

    def after():
        s.sendall(b"more")
        s.close()
    return after


def clogged(address, name):
    return dial(address, HERE, name, small=True)


def all_of(name, s):
    got = exactly(s, len(BLOCK) * 5)
    check(got == BLOCK * 4, f"{name}: {len(got)} bytes")


def fin_wait1(address):
    s = clogged(address, "fin_wait1")

    def after():
        all_of("fin_wait1", s)
        s.sendall(b"thanks")
        s.close()
    return after


def last_ack(address):
    s = clogged(address, "last_ack")
    s.sendall(b"the end")
    s.shutdown(socket.SHUT_WR)
    return lambda: all_of("last_ack", s)


def closing(address):
    s = clogged(address, "closing")
    time.sleep(0.3)
    s.shutdown(socket.SHUT_WR)
    return lambda: all_of("closing", s)


def vanished(address):
    s = dial(address, HERE, "vanished")
    time.sleep(0.1)
    vanish(s)


def urgent(address):
    s = dial(address, HERE, "urgent")
    s.sendall(b"before")
    s.send(b"!", socket.MSG_OOB)
    s.sendall(b"after")
    return lambda: same("urgent", exactly(s, 6), b"thanks")


def many():
    """Thousands of clients, each of which says something before and after."""
    ready()
    until(lambda: there("CONNECT"), "CONNECT")
    count = int(sys.argv[1])
    clients = [socket.create_connection((INSIDE[i % 2], HERE)) for i in range(count)]
    for word in b"before the restore", b"after the restore":
        for s in clients:
            s.sendall(word)
        for i, s in enumerate(clients):
            s.settimeout(30)
            same(f"client {i}", exactly(s, len(word)), word)
        if word.startswith(b"before"):
            write("CONNECTED", "connected\n")
            go()
    for s in clients:
        s.close()


def early(address):
    """Is not accepted before GO."""
    clients = [socket.create_connection((address, HERE + 1)) for _ in range(4)]
    for i, s in enumerate(clients[1:]):
        s.sendall(b"hello %d\n" % (i + 1))
    clients[3].shutdown(socket.SHUT_WR)

    def after():
        clients[0].sendall(b"hello 0\n")
        for i, s in enumerate(clients):
            same("early", exactly(s, 100), b"hello %d yourself" % i)
    return after


def test():
    serve({"echo": echo}, THERE)
    serve({"echo": echo}, THERE + 1)  # whose callers are not heard before GO
    ready()
    until(lambda: there("CONNECT"), "CONNECT")
    busy, rest = [], []
    for address in INSIDE:
        busy += [thread(f, address) for f in (ping, duplex)]
        rest += [f(address) for f in (full, idle, close_wait, unread, fin_wait2, fin_wait1, last_ack, closing, vanished, urgent, early)]
    time.sleep(0.5)  # what is on its way arrives
    write("CONNECTED", "connected\n")
    go()
    ends = [thread(f) for f in rest if f]
    for t in ends + busy:
        join_thread(t, 120)
    write("DONE", "done\n")
    until(lambda: there("END"), "END")


main(many if sys.argv[1:] else test)
