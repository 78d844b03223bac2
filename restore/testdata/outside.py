"""Connections whose other end is outside the instance: the end inside."""
from wire import *


def duplex(s):
    """Send until the peer has sent all, and tell how much that was."""
    st = Stream(s)
    done = threading.Event()
    t = thread(st.send, lambda: not done.is_set())
    st.receive()
    done.set()
    join_thread(t)
    st.finish(b"%016d" % st.received)


def full(s):
    """Neither end reads before GO."""
    st = Stream(s)
    st.stuff()
    go()
    t = thread(st.receive)
    st.send(lambda: st.sent < 12 << 20)
    join_thread(t)
    st.finish(b"%016d" % st.received)


def close_wait(s):
    same("close_wait", exactly(s, 100), b"the end")
    go()
    same("CLOSE_WAIT", state(s), CLOSE_WAIT)
    s.sendall(b"more")


def unread(s):
    """A FIN behind data."""
    go()
    same("unread", exactly(s, 100), b"the end")
    s.sendall(b"more")


def fin_wait2(s):
    s.sendall(b"the end")
    s.shutdown(socket.SHUT_WR)
    until(lambda: state(s) == FIN_WAIT2, "FIN_WAIT2")
    go()
    same("fin_wait2", exactly(s, 100), b"more")


def clog(s):
    """Send more than the peer takes, and a FIN behind it."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    s.sendall(BLOCK * 4)
    s.shutdown(socket.SHUT_WR)


def fin_wait1(s):
    clog(s)
    same("FIN_WAIT1", state(s), FIN_WAIT1)
    go()
    same("fin_wait1", exactly(s, 100), b"thanks")


def last_ack(s):
    same("last_ack", exactly(s, 100), b"the end")
    clog(s)
    same("LAST_ACK", state(s), LAST_ACK)
    go()
    until(lambda: state(s) == CLOSE, "end of LAST_ACK")


def closing(s):
    clog(s)
    until(lambda: state(s) == CLOSING, "CLOSING")
    go()
    until(lambda: state(s) in (CLOSE, 6), "end of CLOSING")


def vanished(s):
    """The peer is not there any more, and nobody has said so."""
    go()
    s.sendall(b"hello?")
    try:
        s.recv(1)
        fail("an answer of nobody")
    except ConnectionResetError:
        pass


def urgent(s):
    until(lambda: select.select([], [], [s], 0)[2], "urgent byte")
    go()
    same("urgent", [exactly(s, 6), s.recv(1, socket.MSG_OOB), exactly(s, 5)], [b"before", b"!", b"after"])
    s.sendall(b"thanks")


def calls(address):
    """Connections that begin inside."""
    s = dial(address, THERE, "echo")
    s.sendall(b"to and")
    same("to and", exactly(s, 6), b"to and")
    slow = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    slow.setblocking(False)
    slow.connect_ex((address, THERE + 1))
    same("SYN_SENT", state(slow), SYN_SENT)
    write("calling-" + address, "")
    name = slow.getsockname()
    go()
    s.sendall(b"fro")
    same("fro", exactly(s, 3), b"fro")
    slow.setblocking(True)
    until(lambda: select.select([], [slow], [], 0.1)[1], "connection")
    same("name", slow.getsockname(), name)
    slow.sendall(b"echo\nhello")
    same("after SYN_SENT", exactly(slow, 5), b"hello")
    s.close()
    slow.close()


def deserted():
    """Comes back without the address that its connections have."""
    l = socket.create_server((INSIDE[0], HERE))
    s = dial(OUTSIDE[0], THERE, "echo")
    s.sendall(b"read later")
    until(lambda: select.select([s], [], [], 0)[0], "answer")
    deaf = dial(OUTSIDE[0], THERE, "echo")
    waiting = dial(OUTSIDE[0], THERE, "echo")
    told = []

    def wait_for_it():
        try:
            told.append(waiting.recv(1))
        except OSError as e:
            told.append(e.errno)
    t = thread(wait_for_it)
    ready()
    go()
    same("what had come", s.recv(100), b"read later")
    for what, action in (("send", lambda: s.send(b"x")), ("recv", lambda: deaf.recv(1))):
        try:
            action()
            fail(what + " without a connection")
        except OSError as e:
            check(e.errno in (errno.ECONNRESET, errno.EPIPE), f"{what}: {e}")
    join_thread(t)
    same("who waited", told, [errno.ECONNRESET])
    same("listener", l.getsockname(), (INSIDE[0], HERE))


def many():
    """A server of thousands."""
    l = socket.create_server(("", HERE), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1000)
    l.setblocking(False)
    ready()
    fork(lambda: serve_many(l))
    serve_many(l)


def serve_many(l):
    ep = select.epoll()
    ep.register(l, select.EPOLLIN)
    served = {}
    while not there("END"):
        for fd, _ in ep.poll(0.1):
            if fd == l.fileno():
                try:
                    s, _ = l.accept()
                except BlockingIOError:
                    continue
                s.setblocking(True)
                served[s.fileno()] = s
                ep.register(s, select.EPOLLIN)
                continue
            data = served[fd].recv(4096)
            if data:
                served[fd].sendall(data)
            else:
                ep.unregister(fd)
                served.pop(fd).close()


def test():
    handlers = (echo, duplex, full, close_wait, unread, fin_wait2, fin_wait1, last_ack, closing, vanished, urgent)
    serve({h.__name__: h for h in handlers}, HERE)
    late = socket.create_server(("", HERE + 1), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
    ready()
    until(lambda: there("CALL"), "CALL")
    callers = [thread(calls, a) for a in OUTSIDE]
    go()
    for _ in range(8):
        s, _ = late.accept()
        data = line(s)
        s.sendall(data.encode() + b" yourself")
        s.close()
    for t in callers:
        join_thread(t)
    until(lambda: there("END"), "END")


main({"": test, "many": many, "deserted": deserted}[sys.argv[1]])
