"""Settings of the ipc and network namespaces, by sysctl(8)."""
from kind import *

WANT = {
    "kernel/msgmax": "9000", "kernel/sem": "300\t32000\t600\t130", "kernel/shm_rmid_forced": "1", "kernel/shmmni": "777",
    "fs/mqueue/msg_max": "12", "fs/mqueue/queues_max": "13",
    "net/unix/max_dgram_qlen": "33", "net/ipv4/ip_local_port_range": "20000\t30001", "net/ipv4/ping_group_range": "5\t1000",
    "net/ipv4/ip_forward": "1", "net/ipv4/conf/all/accept_redirects": "1", "net/ipv4/conf/lo/forwarding": "0", "net/ipv4/conf/all/rp_filter": "2", "net/ipv4/tcp_keepalive_time": "77",
    "net/ipv6/conf/default/hop_limit": "33", "net/ipv6/conf/lo/stable_secret": "2001:db8::1", "net/core/somaxconn": "99",
}


def read(name):
    try:
        with open("/proc/sys/" + name) as f:
            return f.read().rstrip("\n")
    except OSError as e:
        return e.errno


def everything():
    found = {}
    for dir, _, names in os.walk("/proc/sys/net"):
        for name in names:
            full = os.path.join(dir, name)
            if os.stat(full).st_mode & 0o600 == 0o600:
                found[full] = read(full[len("/proc/sys/"):])
    return found


def test():
    for name, value in WANT.items():
        with open("/proc/sys/" + name, "w") as f:
            f.write(value)
    before = everything()
    wait()
    for name, value in WANT.items():
        if not name.endswith("secret"):
            same(name, read(name), value)
    after = everything()
    for name, value in before.items():
        same(name, after[name], value)


main(test)
