"""Unix sockets: pairs with queued data, names, listeners with pending connections, half-closed and orphaned ones."""
import array
import socket
import struct

from kind import *

STREAM, DGRAM, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
SO_PASSCRED, SO_PEERCRED, SCM_CREDENTIALS = socket.SO_PASSCRED, socket.SO_PEERCRED, socket.SCM_CREDENTIALS
kinds = (STREAM, DGRAM, SEQPACKET)


def unix(kind=STREAM):
    return socket.socket(socket.AF_UNIX, kind)


def listener(name, kind=STREAM, backlog=5):
    s = unix(kind)
    s.bind(name)
    s.listen(backlog)
    return s


def connected(name, kind=STREAM):
    s = unix(kind)
    s.connect(name)
    return s


def creds(s):
    return struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, 12))


def blocks(s):
    return not readable(s.fileno())


def test():
    os.chdir(DIR)
    pairs = {kind: socket.socketpair(socket.AF_UNIX, kind) for kind in kinds}
    for kind, (a, b) in pairs.items():
        for text in (b"first", b"second message"):
            a.send(text)
        b.send(b"back" * 300)
    empties = {kind: socket.socketpair(socket.AF_UNIX, kind) for kind in kinds}
    many = [socket.socketpair() for _ in range(300)]
    big = socket.socketpair()
    blob = bytes(range(256)) * 400
    big[0].sendall(blob)
    half = socket.socketpair()
    half[0].send(b"the end")
    half[0].shutdown(socket.SHUT_WR)
    half[1].send(b"still")
    deaf = socket.socketpair()
    deaf[0].shutdown(socket.SHUT_RD)
    left = socket.socketpair()
    left[1].send(b"goodbye")
    left[1].close()
    left_packets = socket.socketpair(socket.AF_UNIX, SEQPACKET)
    left_packets[1].send(b"good")
    left_packets[1].send(b"bye")
    left_packets[1].close()

    by_path, abstract, relative = listener(path("listen")), listener("\0kind"), listener("rel")
    client, other = connected(path("listen")), connected("\0kind")
    server, _ = by_path.accept()
    served, _ = abstract.accept()
    named = unix()
    named.bind(path("client"))
    named.connect(path("listen"))
    named_server, _ = by_path.accept()
    client.send(b"request")
    server.send(b"answer")
    waiting = [connected(path("listen")) for _ in range(2)]
    packets = listener("\0kind-packets", SEQPACKET)
    early = connected("\0kind-packets", SEQPACKET)
    gone = listener(path("gone"))
    gone_client = connected(path("gone"))
    gone_server, _ = gone.accept()
    os.unlink(path("gone"))
    auto = unix(DGRAM)
    auto.bind("")

    box = unix(DGRAM)
    box.bind(path("box"))
    sender = unix(DGRAM)
    sender.bind(path("sender"))
    sender.connect(path("box"))
    sender.send(b"letter")
    anonymous = unix(DGRAM)
    anonymous.sendto(b"no sender", path("box"))
    auto.sendto(b"from a number", path("box"))
    departed = unix(DGRAM)
    departed.bind("\0kind-departed")
    departed.sendto(b"from the departed", path("box"))
    departed.close()

    eager = listener("\0kind-eager")
    eager_clients = [connected("\0kind-eager") for _ in range(3)]
    eager_clients[0].send(b"early")
    eager_clients[0].send(b" bird")
    eager_clients[1].send(b"last words")
    eager_clients[1].close()
    eager_packets = listener("\0kind-eager-packets", SEQPACKET)
    eager_packet = connected("\0kind-eager-packets", SEQPACKET)
    eager_packet.send(b"one")
    eager_packet.send(b"x" * 10000)
    eager_packet.shutdown(socket.SHUT_WR)

    passing = socket.socketpair()
    for s in passing:
        s.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
    passing[0].send(b"with credentials")
    fds = socket.socketpair()
    with open(path("passed"), "w+") as f:
        f.write("a file on its way")
        f.flush()
        r, w = os.pipe()
        os.write(w, b"a pipe on its way")
        fds[0].sendmsg([b"fds"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [f.fileno(), r]))])
    os.close(r)
    os.close(w)
    tuned = unix()
    tuned.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50000)
    tuned.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 60000)
    tuned.settimeout(None)
    tuned.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 7, 0))
    idle = unix()
    bound = unix()
    bound.bind("\0kind-bound")
    link = socket.socketpair()

    def child():
        link[0].close()
        while True:
            data = link[1].recv(100)
            if not data:
                break
            link[1].send(b"echo " + data)
        peer = connected(path("listen"))
        peer.send(b"from the child")
        same("child: answer", peer.recv(100), b"to the child")
    pid = fork(child)
    link[1].close()

    strangers = {}
    for what, end in (("dead", os._exit), ("living", lambda _: go())):
        ours, theirs = socket.socketpair()
        heir = listener("\0kind-heir-" + what)

        def connect():
            os.setegid(5)
            os.seteuid(1000)
            heir.listen()
            heir_client = connected("\0kind-heir-" + what)
            pair = socket.socketpair()
            theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [heir_client.fileno(), pair[0].fileno(), pair[1].fileno()]))])
            end(0)
        stranger = fork(connect)
        _, control, _, _ = ours.recvmsg(1, 100)
        got = [socket.socket(fileno=fd) for fd in array.array("i", control[0][2])]
        if what == "dead":
            join(stranger)
        accepted, _ = heir.accept()
        for s in got + [heir]:
            same(f"{what} stranger", creds(s), (stranger, 1000, 5))
        same(f"{what} stranger, accepted", creds(accepted), (stranger, 1000, 5))
        strangers[what] = stranger, got + [heir, accepted]
    link[0].send(b"early")
    asleep(pid)
    until(lambda: not blocks(link[0]), "echo")
    before = [(s.getsockname(), s.gettimeout()) for s in (by_path, abstract, relative, client, server, named, named_server, box, auto, bound)]
    peers = [s.getpeername() for s in (client, server, other, served, named, named_server, sender, gone_client)]
    credentials = [creds(s) for s in (client, server, pairs[STREAM][0])]
    options = [tuned.getsockopt(socket.SOL_SOCKET, o) for o in (socket.SO_SNDBUF, socket.SO_RCVBUF)]
    mode = os.stat(path("listen")).st_mode

    wait()

    for kind, (a, b) in pairs.items():
        if kind == STREAM:
            same("stream", b.recv(100), b"firstsecond message")
        else:
            same(f"messages of {kind!r}", [b.recv(100), b.recv(100)], [b"first", b"second message"])
        same(f"back of {kind!r}", a.recv(5000), b"back" * 300)
        check(blocks(a) and blocks(b), f"{kind!r}: something more to read")
        a.send(b"again")
        same(f"again of {kind!r}", b.recv(100), b"again")
    for kind, (a, b) in empties.items():
        check(blocks(a) and blocks(b), f"empty {kind!r}: something to read")
        b.send(b"x")
        same(f"empty {kind!r}", a.recv(10), b"x")
    got = b""
    while len(got) < len(blob):
        got += big[1].recv(1 << 20)
    check(got == blob, "a long stream")
    same("credentials of many", [creds(a) for a, _ in many], [(os.getpid(), os.getuid(), os.getgid())] * len(many))
    same("half closed", [half[1].recv(100), half[1].recv(100), half[0].recv(100)], [b"the end", b"", b"still"])
    half[1].send(b"more")
    same("other half", half[0].recv(100), b"more")
    same("deaf", deaf[0].recv(10), b"")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for what, s in (("half closed", half[0]), ("left", left[0]), ("deaf's peer", deaf[1])):
        try:
            s.send(b"x")
            fail(what + ": send succeeds")
        except BrokenPipeError:
            pass
    same("left", [left[0].recv(100), left[0].recv(100)], [b"goodbye", b""])
    same("left packets", [left_packets[0].recv(100) for _ in range(3)], [b"good", b"bye", b""])

    same("names", [(s.getsockname(), s.gettimeout()) for s in (by_path, abstract, relative, client, server, named, named_server, box, auto, bound)], before)
    same("peers", [s.getpeername() for s in (client, server, other, served, named, named_server, sender, gone_client)], peers)
    same("credentials", [creds(s) for s in (client, server, pairs[STREAM][0])], credentials)
    for what, (stranger, theirs) in strangers.items():
        same(f"credentials of a {what} process", [creds(s) for s in theirs], [(stranger, 1000, 5)] * len(theirs))
    same("mode of the file", os.stat(path("listen")).st_mode, mode)
    same("request", server.recv(100), b"request")
    same("answer", client.recv(100), b"answer")
    other.send(b"abstract")
    same("abstract", served.recv(100), b"abstract")
    first, _ = by_path.accept()
    same("credentials of one that waited", creds(first), (os.getpid(), os.getuid(), os.getgid()))
    second, _ = by_path.accept()
    waiting[0].send(b"after accept")
    same("pending", first.recv(100), b"after accept")
    second.send(b"hello")
    same("pending, answered", waiting[1].recv(100), b"hello")
    third = connected(path("listen"))
    fourth, _ = by_path.accept()
    third.send(b"new")
    same("a new connection", fourth.recv(100), b"new")
    conn, _ = packets.accept()
    early.send(b"p1")
    early.send(b"p2")
    same("pending packets", [conn.recv(100), conn.recv(100)], [b"p1", b"p2"])
    conn.send(b"p3")
    same("packet back", early.recv(100), b"p3")
    connected("\0kind")
    abstract.accept()
    connected("rel")
    relative.accept()
    gone_client.send(b"g")
    same("deleted name", gone_server.recv(10), b"g")
    check(not there("gone"), "the deleted name is back")
    same("letters", [box.recvfrom(100) for _ in range(4)],
         [(b"letter", path("sender")), (b"no sender", None), (b"from a number", before[8][0]), (b"from the departed", b"\0kind-departed")])
    answers = [eager.accept()[0] for _ in eager_clients]
    same("sent before it was accepted", [answers[0].recv(100), answers[1].recv(100), answers[1].recv(100)], [b"early bird", b"last words", b""])
    check(blocks(answers[0]) and blocks(answers[2]), "something more was sent")
    same("credentials before it was accepted", [creds(s) for s in answers], [(os.getpid(), os.getuid(), os.getgid())] * 3)
    for text in (b"still", b"here"):
        eager_clients[0].send(text)
        same("sent after", answers[0].recv(100), text)
    answers[2].send(b"back")
    same("sent back", eager_clients[2].recv(100), b"back")
    answer, _ = eager_packets.accept()
    same("packets sent before", [answer.recv(20000) for _ in range(3)], [b"one", b"x" * 10000, b""])
    answer.send(b"back")
    same("packet sent back", eager_packet.recv(100), b"back")
    sender.send(b"second letter")
    same("second letter", box.recvfrom(100), (b"second letter", path("sender")))
    box.sendto(b"reply", path("sender"))
    try:
        box.sendto(b"reply", b"\0kind-departed")
        fail("the departed can be written to")
    except ConnectionRefusedError:
        pass
    data, control, _, _ = passing[1].recvmsg(100, 100)
    same("credentials of a message", (data, [(c[1], struct.unpack("3i", c[2])) for c in control]),
         (b"with credentials", [(SCM_CREDENTIALS, (os.getpid(), os.getuid(), os.getgid()))]))
    data, control, _, _ = fds[1].recvmsg(100, 100)
    got = array.array("i", control[0][2]) if control else []
    same("descriptors on their way", (data, len(got)), (b"fds", 2))
    if len(got) == 2:
        same("file on its way", os.pread(got[0], 100, 0), b"a file on its way")
        same("offset of it", os.lseek(got[0], 0, os.SEEK_CUR), 17)
        same("pipe on its way", [os.read(got[1], 100), os.read(got[1], 100)], [b"a pipe on its way", b""])
    same("options", [tuned.getsockopt(socket.SOL_SOCKET, o) for o in (socket.SO_SNDBUF, socket.SO_RCVBUF)], options)
    same("time limit", struct.unpack("qq", tuned.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)), (7, 0))
    idle.connect(path("listen"))
    by_path.accept()
    bound.listen()
    connected("\0kind-bound")
    bound.accept()
    same("echo", link[0].recv(100), b"echo early")
    link[0].send(b"late")
    same("echo, after", link[0].recv(100), b"echo late")
    link[0].close()
    peer, _ = by_path.accept()
    same("from the child", peer.recv(100), b"from the child")
    same("its credentials", creds(peer), (pid, os.getuid(), os.getgid()))
    peer.send(b"to the child")
    join(pid)
    join(strangers["living"][0])


main(test)
