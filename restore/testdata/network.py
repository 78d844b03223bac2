"""A network: interfaces, addresses, neighbours, routes, rules, packet filters, traffic control."""
import json
import shlex
import socket
import subprocess

from kind import *

BUILD = """
link set lo mtu 40000
addr add 192.0.2.1/32 dev lo label lo:one
link add br0 type bridge ageing_time 20000 mcast_snooping 0
link add west mtu 1400 txqlen 77 type veth peer name east
link set west address 02:00:00:00:00:11 alias "the west end" group 7
link property add dev west altname western altname the-west-end
link set east master br0
link set east type bridge_slave cost 33 isolated on
link add low0 type veth peer name low1
link add mac0 link low0 type macvlan mode bridge
link add 777 type ifb
link set br0 up
link set west up
link set east up
link set low0 up
link set low1 up promisc on arp off
link set mac0 up
addr add 10.1.0.1/24 brd + dev west
addr add 10.1.0.2/24 dev west
addr add 10.2.0.1 peer 10.2.0.2 dev west noprefixroute
addr add 10.3.0.1/16 dev br0 metric 5 valid_lft 4000 preferred_lft 3000
addr add 2001:db8:1::1/64 dev west nodad
addr add 2001:db8:2::1/64 dev west noprefixroute nodad
addr add 2001:db8:3::1/64 dev mac0 nodad valid_lft 4000 preferred_lft 3000
addr del 127.0.0.1/8 dev lo
addr add 127.0.0.1/16 dev lo
neigh add 10.1.0.9 lladdr 02:00:00:00:00:99 dev west nud permanent
neigh add 2001:db8:1::9 lladdr 02:00:00:00:00:99 dev west nud permanent
neigh add proxy 10.9.9.9 dev br0
route add 10.7.0.0/16 via 10.1.0.9 dev west src 10.1.0.2 mtu 1300 advmss 1000 metric 50
route add 10.1.0.200 dev west scope link
route add default via 10.1.0.200
route add blackhole 10.66.0.0/16
route add unreachable 10.67.0.0/16 metric 3
route add prohibit 10.68.0.0/16 table 1000
route add 10.8.0.0/16 via 10.1.0.9 table 1000 proto static
route add 10.99.0.0/16 via inet6 fe80::1 dev west onlink
-6 route add 2001:db8:77::/48 via 2001:db8:1::9 metric 7
-6 route add default via 2001:db8:1::9 pref high
-6 route add unreachable 2001:db8:66::/48
-6 route del 2001:db8:3::/64 dev mac0
nexthop add id 10 via 10.1.0.9 dev west
nexthop add id 11 via 10.1.0.10 dev west
nexthop add id 20 group 10,3/11
nexthop add id 30 blackhole
route add 10.20.0.0/16 nhid 20
route add 10.21.0.0/16 nhid 10
rule add from 10.7.0.0/16 fwmark 0x5/0xff table 1000 priority 500
rule add uidrange 100-200 iif west ipproto tcp dport 80-90 table 1000 priority 600
rule add goto 32766 priority 700
-6 rule add to 2001:db8::/32 table 1000 priority 800
rule del priority 32767
"""

FILTERS = """
table inet filter {
  counter hits { packets 17 bytes 1700; }
  set open { type inet_service; flags interval; elements = { 22, 80-90 }; }
  set seen { type ipv4_addr; flags dynamic,timeout; timeout 1h; elements = { 10.1.0.77 timeout 30m }; }
  chain other {
    counter packets 5 bytes 55
    return
  }
  map ports { type inet_service : verdict; elements = { 1 : accept, 2 : jump other }; }
  chain input {
    type filter hook input priority 0; policy accept;
    ip saddr { 10.66.0.1, 10.66.0.2 } drop
    tcp dport @open counter packets 3 bytes 300 accept
    tcp dport vmap @ports
    ip saddr 10.5.0.0/16 jump {
      counter packets 1 bytes 2
      drop
    }
    counter name hits comment "nothing more"
  }
}
table ip nat {
  chain out {
    type nat hook postrouting priority 100
    ip saddr 10.1.0.0/24 oifname "br0" masquerade
  }
  chain in {
    type nat hook prerouting priority -100
    iifname "west" tcp dport 8080 dnat to 10.1.0.2:80
  }
  chain self {
    type nat hook output priority -100
    ip daddr 192.0.2.77 udp dport 5353 dnat to 192.0.2.1:53
    ip daddr 192.0.2.77 tcp dport 8080 dnat to 192.0.2.1:80
  }
}
"""


def run(*command, text=None):
    result = subprocess.run(command, input=text, capture_output=True, text=True, env={"PATH": "/usr/sbin"})
    if result.returncode:
        raise OSError(f"{' '.join(command)}: {result.stderr}")
    return result.stdout


def trim(value):
    """What a person can see of an object and must stay: lifetimes within a minute, no handles."""
    if isinstance(value, list):
        return [trim(v) for v in value]
    if isinstance(value, dict):
        return {k: v // 100 if k in ("valid_life_time", "preferred_life_time") and v < 1 << 31 else v // 60 if k == "expires" else trim(v)
                for k, v in value.items() if k not in ("handle", "genid", "stats", "stats64", "hello_timer", "gc_timer", "tcn_timer",
                                                       "topology_change_timer", "topology_change", "topology_change_detected",
                                                       "forward_delay_timer", "hold_timer", "message_age_timer")}
    return value


def everything():
    found = {}
    for what in ("-d link", "-d addr", "-d neigh", "-d neigh show proxy", "-d -4 route show table all", "-d -6 route show table all", "-d nexthop",
                 "-4 rule", "-6 rule"):
        found["ip " + what] = trim(json.loads(run("ip", "-j", *what.split()) or "[]"))
    # Which of the ways to link-local addresses comes first the kernel decides as interfaces come up.
    found["ip -d -6 route show table all"].sort(key=json.dumps)
    found["tc"] = trim(json.loads(run("tc", "-j", "-d", "qdisc")))
    found["tc class"] = run("tc", "class", "show", "dev", "west")
    found["nft"] = trim(json.loads(run("nft", "-j", "list", "ruleset"))["nftables"])
    found["iptables"] = [line for line in run("iptables-save", "-c").splitlines() if not line.startswith("#")]
    # The kernel talks to its IPv6 neighbours at any time.
    found["ip6tables"] = [line for line in run("ip6tables-save", "-c").splitlines() if line.startswith("[")]
    found["conntrack"] = connections()
    return found


def compare(where, before, after):
    """Say where two values differ."""
    if type(before) is type(after) is dict:
        for key in sorted(before.keys() | after.keys()):
            compare(f"{where}/{key}", before.get(key), after.get(key))
    elif type(before) is type(after) is list and len(before) == len(after):
        for i, value in enumerate(before):
            compare(f"{where}/{i}", value, after[i])
    else:
        same(where, after, before)


def connections():
    """Tracked connections, without the time that is left to them."""
    with open("/proc/net/nf_conntrack") as f:
        return sorted(" ".join(w for i, w in enumerate(line.split()) if i != 4) for line in f)


def translated(reverse):
    """Send a datagram through a translated connection, and hear the answer."""
    if not reverse:
        global server, client, peer
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("192.0.2.1", 53))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.bind(("192.0.2.1", 4444))
        client.sendto(b"ask", ("192.0.2.77", 5353))
        asked, peer = server.recvfrom(100)
        same("asked", asked, b"ask")
        return
    server.sendto(b"answer", peer)
    client.settimeout(5)
    same("answer", client.recvfrom(100), (b"answer", ("192.0.2.77", 5353)))


def connected(reverse):
    """Make a connection to a translated address, and use it."""
    global near, far
    if not reverse:
        listener = socket.create_server(("192.0.2.1", 80))
        near = socket.create_connection(("192.0.2.77", 8080))
        far, _ = listener.accept()
        listener.close()
    for a, b in ((near, far), (far, near)):
        a.sendall(b"hello")
        b.settimeout(10)
        same("heard", b.recv(100), b"hello")
    same("peer", near.getpeername(), ("192.0.2.77", 8080))


def test():
    for line in BUILD.strip().splitlines():
        run("ip", *shlex.split(line))
    for name, value in {"net/ipv6/conf/west/accept_ra": "0", "net/ipv4/conf/br0/rp_filter": "2", "net/ipv4/ip_forward": "1"}.items():
        with open("/proc/sys/" + name, "w") as f:
            f.write(value)
    for line in ("qdisc add dev west root handle 1: htb default 30", "class add dev west parent 1: classid 1:1 htb rate 10mbit burst 15k",
                 "class add dev west parent 1:1 classid 1:30 htb rate 1mbit ceil 5mbit", "qdisc add dev west parent 1:30 handle 30: pfifo limit 50",
                 "qdisc add dev east root handle 5: tbf rate 1mbit burst 32kbit latency 400ms", "qdisc add dev br0 ingress"):
        run("tc", *line.split())
    run("nft", "-f", "-", text=FILTERS)
    run("iptables", "-A", "INPUT", "-s", "10.50.0.0/16", "-p", "tcp", "--dport", "99", "-c", "7", "700", "-j", "DROP")
    run("iptables", "-P", "FORWARD", "DROP")
    run("iptables", "-t", "mangle", "-A", "OUTPUT", "-m", "owner", "--uid-owner", "1000", "-j", "ACCEPT")
    run("ip6tables", "-A", "INPUT", "-p", "udp", "--dport", "99", "-c", "8", "800", "-j", "DROP")
    translated(False)
    connected(False)
    until(lambda: not any("tentative" in a for i in json.loads(run("ip", "-j", "addr")) for a in i["addr_info"]), "addresses to be valid")
    time.sleep(0.5)
    before = everything()
    wait()
    compare("", before, everything())
    translated(True)
    connected(True)


main(test)
