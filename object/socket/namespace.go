package socket

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vps/object"
)

// Namespace is the network namespace of an instance.
type Namespace struct {
	pid    int // of a process in it, here
	cookie uint64
	usuals map[kind][]setting
}

// kind is what socket(2) takes.
type kind struct{ family, kind, protocol uint32 }

// NewNamespace returns the network namespace of a process, by its pid here. It belongs to one goroutine.
func NewNamespace(pid int) *Namespace { return &Namespace{pid: pid, usuals: make(map[kind][]setting)} }

// Do runs f on a thread in the namespace.
func (n *Namespace) Do(f func() error) error {
	return object.InNamespace(n.pid, "net", unix.CLONE_NEWNET, f)
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

// usual returns the options that a new socket has, as far as that has them.
func (n *Namespace) usual(k kind) ([]setting, error) {
	if k.kind == unix.SOCK_DGRAM && (k.protocol == unix.IPPROTO_ICMP || k.protocol == unix.IPPROTO_ICMPV6) {
		k.protocol = unix.IPPROTO_UDP // not everybody may make the other (icmp(7), ping_group_range)
	}
	if list, ok := n.usuals[k]; ok {
		return list, nil
	}
	err := n.Do(func() error {
		fd, err := unix.Socket(int(k.family), int(k.kind)|unix.SOCK_CLOEXEC, int(k.protocol))
		if err != nil {
			return fmt.Errorf("socket of family %d, type %d, protocol %d: %w", k.family, k.kind, k.protocol, err)
		}
		defer unix.Close(fd)
		n.usuals[k] = readOptions(fd)
		return nil
	})
	return n.usuals[k], err
}
