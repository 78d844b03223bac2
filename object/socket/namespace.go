package socket

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
)

// Namespace is the network namespace of an instance.
type Namespace struct {
	pid    int // of a process in it, here
	cookie uint64
	usual  map[kind][]setting // what a new socket has
}

// kind is what socket(2) takes.
type kind struct{ family, kind, protocol uint32 }

// NewNamespace returns the network namespace of a process, by its pid here. It belongs to one goroutine.
func NewNamespace(pid int) *Namespace { return &Namespace{pid: pid, usual: make(map[kind][]setting)} }

// Do runs f on a thread in the namespace.
func (n *Namespace) Do(f func() error) error {
	return object.InNamespace(n.pid, "net", unix.CLONE_NEWNET, f)
}

// Addresses returns the addresses that the namespace has, but for those of the loopback networks that no interface names.
func (n *Namespace) Addresses() (map[netip.Addr]bool, error) {
	local := make(map[netip.Addr]bool)
	err := n.Do(func() error {
		addresses, err := net.InterfaceAddrs()
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range addresses {
			if prefix, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(prefix.IP); ok {
					local[ip.Unmap()] = true
				}
			}
		}
		return nil
	})
	return local, err
}

// Has tells whether a socket is of the namespace.
func (n *Namespace) Has(fd int) (bool, error) {
	if n.cookie == 0 {
		err := n.Do(func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("socket: %w", err)
			}
			defer unix.Close(fd)
			n.cookie, err = cookie(fd)
			return err
		})
		if err != nil {
			return false, err
		}
	}
	own, err := cookie(fd)
	return own == n.cookie, err
}

func cookie(fd int) (uint64, error) {
	v, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("SO_NETNS_COOKIE: %w", err)
	}
	return v, nil
}

// kindOf is the kind of a socket, or one with the same options that anybody may make.
func kindOf(s *dump.Socket) kind {
	k := kind{s.GetFamily(), s.GetType(), s.GetProtocol()}
	if k.kind == unix.SOCK_DGRAM && (k.protocol == unix.IPPROTO_ICMP || k.protocol == unix.IPPROTO_ICMPV6) {
		k.protocol = unix.IPPROTO_UDP // ping_group_range, icmp(7)
	}
	return k
}

// Prepare finds out which options a new socket of a kind has.
func (n *Namespace) Prepare(s *dump.Socket) error {
	k := kindOf(s)
	if _, ok := n.usual[k]; ok {
		return nil
	}
	return n.Do(func() error {
		fd, err := unix.Socket(int(k.family), int(k.kind)|unix.SOCK_CLOEXEC, int(k.protocol))
		if err != nil {
			return fmt.Errorf("socket of family %d, type %d, protocol %d: %w", k.family, k.kind, k.protocol, err)
		}
		defer unix.Close(fd)
		n.usual[k] = readOptions(fd, k.kind == unix.SOCK_STREAM)
		return nil
	})
}
