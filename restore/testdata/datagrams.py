"""Datagram, raw, packet and netlink sockets: names, peers, options, filters, multicast, and what lies in their queues."""
import socket
import struct

from kind import *

V4, V6, UDP = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM
UDPLITE = 136
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_LIST_MEMBERSHIPS, NETLINK_CAP_ACK = 270, 1, 9, 10
MCAST_JOIN_GROUP, MCAST_MSFILTER = 42, 48
SO_ATTACH_FILTER, SO_GET_FILTER, SO_LOCK_FILTER, SO_BUF_LOCK, SO_PEEK_OFF = 26, 26, 44, 72, 42


def udp(address="127.0.0.1", family=V4, protocol=0, **options):
    s = socket.socket(family, UDP, protocol)
    s.bind((address, 0))
    s.settimeout(5)
    return s


def number(s, level, option):
    return s.getsockopt(level, option)


def attach(s, *program):
    """Attach a classic BPF program of (code, jt, jf, k)."""
    code = b"".join(struct.pack("HBBI", *i) for i in program)
    buf = ctypes.create_string_buffer(code)
    s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(program), ctypes.addressof(buf)))


def filtered(s):
    """The number of instructions of a socket's filter."""
    size = ctypes.c_uint(0)
    ok(libc.getsockopt(s.fileno(), socket.SOL_SOCKET, SO_GET_FILTER, None, ctypes.byref(size)), "SO_GET_FILTER")
    return size.value


def storage(family, address):
    packed = socket.inet_pton(family, address)
    return (struct.pack("HH", family, 0) + (b"" if family == V4 else bytes(4)) + packed).ljust(128, b"\0")


def sources(s, family, group, index):
    """Mode and number of sources of a socket's multicast group; None: it has not joined it."""
    buf = ctypes.create_string_buffer(struct.pack("Ixxxx", index) + storage(family, group) + struct.pack("II", 0, 4), 144 + 4 * 128)
    size = ctypes.c_uint(len(buf))
    level = socket.IPPROTO_IP if family == V4 else socket.IPPROTO_IPV6
    if libc.getsockopt(s.fileno(), level, MCAST_MSFILTER, buf, ctypes.byref(size)) == -1:
        return None
    return struct.unpack_from("II", buf, 136)


def drain(s):
    got = []
    while readable(s.fileno()):
        got.append(s.recv(10))
    return got


def hangups(s):
    p = select.poll()
    p.register(s, select.POLLRDHUP)
    return sum(events for _, events in p.poll(0))


def refused(what, action):
    try:
        action()
        fail(what + " succeeds")
    except OSError:
        pass


def test():
    lo = socket.if_nametoindex("lo")
    plain = udp()
    peer = udp()
    peer.connect(plain.getsockname())
    plain.connect(peer.getsockname())
    for text in (b"one", b"two", b"", b"three", b"x" * 60000, b"end"):
        peer.send(text)
    v6 = udp("::1", V6)
    dual = socket.socket(V6, UDP)
    dual.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    dual.bind(("::", 0))
    dual.settimeout(5)
    dual.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    dual_port = dual.getsockname()[1]
    v6.sendto(b"by six", ("::1", dual_port))
    plain_stranger = udp()
    plain_stranger.sendto(b"by four", ("127.0.0.5", dual_port))
    v6_only = udp("::1", V6)
    v6_only.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 9)
    v6_only.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x20)
    anywhere = socket.socket(V4, UDP)
    anywhere.settimeout(5)
    anywhere.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    anywhere.bind(("0.0.0.0", 0))
    stranger = udp()
    stranger.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 77)
    anywhere.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
    stranger.sendto(b"to nine", ("127.0.0.9", anywhere.getsockname()[1]))
    gone = udp()
    gone_name = gone.getsockname()
    gone.sendto(b"from the gone", ("127.0.0.1", anywhere.getsockname()[1]))
    gone.close()
    unbound = socket.socket(V4, UDP)
    tuned = udp()
    tuned.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    tuned.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
    tuned.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 3)
    tuned.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 77)
    tuned.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    tuned.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 3)
    tuned.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
    tuned.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
    tuned.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 5)
    tuned.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER
    tuned.setsockopt(socket.IPPROTO_UDP, 103, 1400)  # UDP_SEGMENT
    tuned.setsockopt(socket.IPPROTO_UDP, 104, 1)  # UDP_GRO
    wanted = [(socket.SOL_SOCKET, o) for o in (socket.SO_BROADCAST, socket.SO_RCVBUF, socket.SO_SNDBUF, socket.SO_PRIORITY, socket.SO_MARK,
                                               SO_PEEK_OFF, SO_BUF_LOCK, socket.SO_REUSEADDR)]
    wanted += [(socket.IPPROTO_IP, o) for o in (socket.IP_TTL, socket.IP_TOS, socket.IP_MULTICAST_TTL, 10, 15)]
    wanted += [(socket.IPPROTO_UDP, o) for o in (103, 104)]
    tuning = [number(tuned, *w) for w in wanted]
    names = [s.getsockname() for s in (plain, peer, v6, dual, v6_only, anywhere, tuned, unbound)]

    group = [socket.socket(V4, UDP) for _ in range(4)]
    for s in group:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", group[0].getsockname()[1]))
    crowd = [udp() for _ in range(40)]
    for i, s in enumerate(crowd):
        s.sendto(b"%d" % i, group[0].getsockname())

    shares = {}  # who of the group has got what: told by peeking
    for i, s in enumerate(group):
        s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        shares[i] = []
        while True:
            try:
                shares[i].append(s.recv(10, socket.MSG_PEEK | socket.MSG_DONTWAIT))
            except BlockingIOError:
                break
        s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
    same("the crowd", sum(map(len, shares.values())), 40)
    late_reuse = udp()
    late_reuse.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sharing = socket.socket(V4, UDP)
    sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sharing.bind(late_reuse.getsockname())
    late_reuse.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    deaf, mute, both = udp(), udp(), udp()
    for s, how in ((deaf, socket.SHUT_RD), (mute, socket.SHUT_WR), (both, socket.SHUT_RDWR)):
        s.connect(plain.getsockname())
        s.shutdown(how)

    cast = [udp("0.0.0.0") for _ in range(2)]
    for s in cast:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4si", socket.inet_aton("239.1.2.3"), bytes(4), lo))
    cast[1].setsockopt(socket.IPPROTO_IP, MCAST_MSFILTER, struct.pack("Ixxxx", lo) + storage(V4, "239.1.2.3") +
                       struct.pack("II", 1, 2) + storage(V4, "10.0.0.1") + storage(V4, "10.0.0.2"))
    cast6 = udp("::", V6)
    cast6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(V6, "ff02::77") + struct.pack("I", lo))
    sender = socket.socket(V4, UDP)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", bytes(4), socket.inet_aton("127.0.0.1"), lo))
    sender.sendto(b"to all", ("239.1.2.3", cast[0].getsockname()[1]))
    membership = [sources(cast[0], V4, "239.1.2.3", lo), sources(cast[1], V4, "239.1.2.3", lo), sources(cast6, V6, "ff02::77", lo)]
    same("membership", membership, [(0, 0), (1, 2), (0, 0)])

    lite = [udp(protocol=UDPLITE) for _ in range(2)]
    lite[0].setsockopt(UDPLITE, 10, 20)  # UDPLITE_SEND_CSCOV
    lite[0].sendto(b"lite", lite[1].getsockname())

    picky = udp()
    attach(picky, (0x20, 0, 0, 8), (0x15, 0, 1, 0x6b656570), (6, 0, 0, 0xffff), (6, 0, 0, 0))  # only "keep"
    picky.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
    peer_of_picky = udp()
    peer_of_picky.sendto(b"drop", picky.getsockname())
    peer_of_picky.sendto(b"keep", picky.getsockname())

    raw = socket.socket(V4, socket.SOCK_RAW, 253)
    raw.settimeout(5)
    raw.bind(("127.0.0.3", 0))
    raw_sender = socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw6 = socket.socket(V6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    raw6.setsockopt(socket.IPPROTO_ICMPV6, 1, b"\xff" * 32)  # ICMPV6_FILTER
    ping = socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    ping.setsockopt(socket.SOL_RAW if hasattr(socket, "SOL_RAW") else 255, 1, struct.pack("I", 0xfffffffe))  # ICMP_FILTER: replies only
    ping.settimeout(5)

    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    sniffer.settimeout(5)
    sniffer.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
    attach(sniffer, (0x30, 0, 0, 9), (0x15, 0, 1, 254), (6, 0, 0, 0xffff), (6, 0, 0, 0))  # protocol 254
    sniffer.bind(("lo", 0x0800))
    sniffer.setsockopt(263, 1, struct.pack("iHH8s", lo, 1, 0, bytes(8)))  # PACKET_ADD_MEMBERSHIP, promiscuous
    ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    ring.setsockopt(263, 10, 1)  # PACKET_VERSION
    ring.setsockopt(263, 5, struct.pack("4I", 4096, 2, 2048, 4))  # PACKET_RX_RING
    old = socket.socket(socket.AF_PACKET, 10, 0x0608)  # SOCK_PACKET
    ok(libc.bind(old.fileno(), struct.pack("H14s", 17, b"lo"), 16), "bind")
    quiet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)

    route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    route.settimeout(5)
    route.bind((0, 0))
    route.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    monitor.bind((4711, 1))
    monitor.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 31)
    monitor.settimeout(5)
    idle = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink_names = [s.getsockname() for s in (route, monitor, idle)]
    groups = monitor.getsockopt(SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, 16)

    wait()

    same("names", [s.getsockname() for s in (plain, peer, v6, dual, v6_only, anywhere, tuned, unbound)], names)
    same("peers", [plain.getpeername(), peer.getpeername()], [names[1], names[0]])
    for text in (b"one", b"two", b"", b"three", b"x" * 60000, b"end"):
        same("queue", plain.recvfrom(70000), (text, names[1]))
    check(not readable(plain.fileno()), "something more in the queue")
    plain.send(b"back")
    same("back", peer.recvfrom(100), (b"back", names[0]))
    data, control, _, sender_name = dual.recvmsg(100, 200)
    same("by six", (data, sender_name[:2]), (b"by six", ("::1", names[2][1])))
    same("by six, control", control[0][2][:16], socket.inet_pton(V6, "::1"))
    data, control, _, sender_name = dual.recvmsg(100, 200)
    same("by four", (data, sender_name[0]), (b"by four", "::ffff:127.0.0.1"))
    same("by four, control", control[0][2][:16], socket.inet_pton(V6, "::ffff:127.0.0.5"))
    same("hops and class", [number(v6_only, socket.IPPROTO_IPV6, o) for o in (socket.IPV6_UNICAST_HOPS, socket.IPV6_TCLASS)], [9, 0x20])
    data, control, _, sender_name = anywhere.recvmsg(100, 200)
    same("to nine", (data, sender_name), (b"to nine", stranger.getsockname()))
    told = {c[1]: c[2] for c in control}
    same("to nine, control", (told[8][8:12], struct.unpack("i", told[2])[0]), (socket.inet_aton("127.0.0.9"), 77))
    same("from the gone", anywhere.recvfrom(100), (b"from the gone", gone_name))
    same("tuning", [number(tuned, *w) for w in wanted], tuning)
    same("device", tuned.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16), b"lo\0")
    refused("peer of the unbound", unbound.getpeername)

    for i, s in enumerate(group):
        same(f"share {i} of the group", drain(s), shares[i])
    for i, s in enumerate(crowd):
        s.sendto(b"%d" % i, group[0].getsockname())
    same("the crowd again", sum(len(drain(s)) for s in group), 40)
    same("reuse", [number(s, socket.SOL_SOCKET, socket.SO_REUSEADDR) for s in (late_reuse, sharing)], [0, 1])
    same("shared name", late_reuse.getsockname(), sharing.getsockname())

    same("deaf", hangups(deaf), select.POLLRDHUP)
    deaf.send(b"x")
    same("mute", hangups(mute), 0)
    refused("sending of the mute", lambda: mute.send(b"x"))
    same("both", hangups(both), select.POLLRDHUP | select.POLLHUP)
    refused("sending of both", lambda: both.send(b"x"))
    check(not readable(plain.fileno()), "plain hears others than its peer")

    same("membership", [sources(cast[0], V4, "239.1.2.3", lo), sources(cast[1], V4, "239.1.2.3", lo), sources(cast6, V6, "ff02::77", lo)], membership)
    same("to all", cast[0].recv(100), b"to all")
    sender.sendto(b"again", ("239.1.2.3", cast[0].getsockname()[1]))
    same("to all again", cast[0].recv(100), b"again")
    same("lite", lite[1].recvfrom(100), (b"lite", lite[0].getsockname()))
    same("coverage", number(lite[0], UDPLITE, 10), 20)
    same("filter", (filtered(picky), number(picky, socket.SOL_SOCKET, SO_LOCK_FILTER)), (4, 1))
    same("filtered", picky.recv(100), b"keep")
    peer_of_picky.sendto(b"drop", picky.getsockname())
    peer_of_picky.sendto(b"keep again", picky.getsockname())
    same("filtered again", picky.recv(100), b"keep again")

    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 253, 0, socket.inet_aton("127.0.0.1"), socket.inet_aton("127.0.0.3"))
    raw_sender.sendto(header + b"raw", ("127.0.0.3", 0))
    same("raw", raw.recv(100)[20:], b"raw")
    same("raw name", raw.getsockname()[0], "127.0.0.3")
    same("ICMPv6 filter", raw6.getsockopt(socket.IPPROTO_ICMPV6, 1, 32), b"\xff" * 32)
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    ping.sendto(echo[:2] + struct.pack("!H", 0xffff - 0x0802) + echo[4:], ("127.0.0.1", 0))
    same("echo", ping.recv(100)[20], 0)

    raw_254 = socket.socket(V4, socket.SOCK_RAW, 254)
    raw_254.sendto(b"sniff me", ("127.0.0.1", 0))
    data, control, _, name = sniffer.recvmsg(100, 100)
    same("sniffed", (data[20:], name[0], len(control)), (b"sniff me", "lo", 1))
    refused("another ring", lambda: ring.setsockopt(263, 5, struct.pack("4I", 4096, 2, 2048, 4)))
    same("quiet", quiet.getsockname()[1], 0)

    same("netlink names", [s.getsockname() for s in (route, monitor, idle)], netlink_names)
    same("groups", monitor.getsockopt(SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, 16), groups)
    same("netlink option", number(route, SOL_NETLINK, NETLINK_CAP_ACK), 1)
    request = struct.pack("IHHII", 32, 18, 1, 1, 0) + struct.pack("BxHiII", 0, 0, lo, 0, 0)  # RTM_GETLINK lo
    route.sendto(request, (0, 0))
    same("netlink answer", struct.unpack_from("IH", route.recv(65536))[1], 16)
    flags = bytearray(struct.pack("16sH22x", b"lo", 0x1009))  # SIOCSIFFLAGS: toggles IFF_MULTICAST
    libc.ioctl(unbound.fileno(), 0x8914, bytes(flags))
    same("event", struct.unpack_from("IH", monitor.recv(65536))[1], 16)


main(test)
