package datagram

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// netlinkPorts is what the kernel tells of the netlink sockets of a network namespace.
type netlinkPorts struct {
	sockets map[uint64]netlinkLine
	bound   map[uint32]string // port ids to which a queue or log of netfilter is bound
}

type netlinkLine struct {
	received uint64 // bytes
	dumping  bool
}

// ports reads what the kernel tells of netlink sockets.
func (d *dumper) ports() (*netlinkPorts, error) {
	if d.portIDs != nil {
		return d.portIDs, nil
	}
	p := &netlinkPorts{sockets: make(map[uint64]netlinkLine), bound: make(map[uint32]string)}
	err := d.ns.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netlink")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) { // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
			f := strings.Fields(line)
			if len(f) < 10 {
				continue
			}
			inode, err := strconv.ParseUint(f[9], 10, 64)
			if err != nil {
				continue // the title
			}
			received, _ := strconv.ParseUint(f[4], 10, 64)
			p.sockets[inode] = netlinkLine{received: received, dumping: f[6] != "0"}
		}
		for name, what := range map[string]string{"nfnetlink_queue": "netfilter queue", "nfnetlink_log": "netfilter log"} {
			text, err := os.ReadFile("/proc/thread-self/net/netfilter/" + name)
			if err != nil {
				continue // not in this kernel
			}
			for line := range strings.Lines(string(text)) { // number, port id
				if f := strings.Fields(line); len(f) > 1 {
					if port, err := strconv.ParseUint(f[1], 10, 32); err == nil {
						p.bound[uint32(port)] = what + " " + f[0]
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("netlink sockets: %w", err)
	}
	d.portIDs = p
	return p, nil
}

// refuseNetlink refuses a netlink socket for which the kernel holds more than it tells.
func (d *dumper) refuseNetlink(l *file.Look) error {
	ports, err := d.ports()
	if err != nil {
		return err
	}
	port, _, err := netlinkName(unix.Getsockname(l.FD))
	if err != nil {
		return err
	}
	if what := ports.bound[port]; port != 0 && what != "" {
		return l.At.Refusal("netlink socket of "+what, "")
	}
	if line := ports.sockets[l.Stat.Ino]; line.received > 0 || line.dumping {
		return fmt.Errorf("%w: %w", object.ErrBusy, l.At.Refusal("netlink socket", "messages of the kernel that nobody has read yet"))
	}
	return nil
}

// netlinkName is the port id and the groups of an address.
func netlinkName(sa unix.Sockaddr, err error) (port, groups uint32, _ error) {
	if err != nil {
		return 0, 0, fmt.Errorf("name of a netlink socket: %w", err)
	}
	a, ok := sa.(*unix.SockaddrNetlink)
	if !ok {
		return 0, 0, fmt.Errorf("name of a netlink socket: %T", sa)
	}
	return a.Pid, a.Groups, nil
}

// netlink reads what a netlink socket has of its own.
func (d *dumper) netlink(l *file.Look, s *dump.Socket) error {
	n := &dump.Netlink{}
	s.Netlink = n
	var err error
	if n.Port, _, err = netlinkName(unix.Getsockname(l.FD)); err != nil {
		return err
	}
	if n.Peer, n.PeerGroups, err = netlinkName(unix.Getpeername(l.FD)); err != nil {
		return err
	}
	n.Groups, err = netlinkGroups(l.FD)
	return err
}

// netlinkGroups lists the multicast groups of a netlink socket, from 1.
func netlinkGroups(fd int) ([]uint32, error) {
	var buf [maxNetlinkGroups / 8]byte
	size, err := linux.Getsockopt(fd, unix.SOL_NETLINK, unix.NETLINK_LIST_MEMBERSHIPS, buf[:])
	if err != nil {
		return nil, fmt.Errorf("NETLINK_LIST_MEMBERSHIPS: %w", err)
	}
	var groups []uint32
	for i := range min(size, len(buf)) * 8 {
		if binary.NativeEndian.Uint32(buf[i/32*4:])&(1<<(i%32)) != 0 {
			groups = append(groups, uint32(i+1))
		}
	}
	return groups, nil
}

// maxNetlinkGroups bounds the numbers of groups: those of generic netlink are given as its families come.
const maxNetlinkGroups = 4096

// checkNetlink looks at a record of a netlink socket.
func checkNetlink(s *dump.Socket) error {
	if s.GetNetlink() == nil || s.GetType() != unix.SOCK_RAW && s.GetType() != unix.SOCK_DGRAM || s.GetLocal() != nil || s.GetPeer() != nil {
		return fmt.Errorf("netlink socket of type %d is not valid", s.GetType())
	}
	for _, g := range s.GetNetlink().GetGroups() {
		if g == 0 || g > maxNetlinkGroups {
			return fmt.Errorf("netlink group %d", g)
		}
	}
	return nil
}

// bindNetlink binds and connects a netlink socket. The maker does it: which groups it may hear is asked of its rights.
func (r *restorer) bindNetlink(s *remote.Script, sock *dump.Socket, fd int) {
	n := sock.GetNetlink()
	address := func(port, groups uint32) []byte { // struct sockaddr_nl, netlink(7)
		data := binary.NativeEndian.AppendUint16(nil, unix.AF_NETLINK)
		data = binary.NativeEndian.AppendUint32(append(data, 0, 0), port)
		return binary.NativeEndian.AppendUint32(data, groups)
	}
	const size = 12
	b := s.Room(1024)
	if n.GetPort() != 0 {
		b.Call("bind", unix.SYS_BIND, fd, b.Data(address(n.GetPort(), 0)), size)
	}
	for _, g := range n.GetGroups() {
		b := s.Room(512)
		b.Call(fmt.Sprintf("join netlink group %d", g), unix.SYS_SETSOCKOPT, fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP,
			b.Data(binary.NativeEndian.AppendUint32(nil, g)), 4)
	}
	if n.GetPeer() != 0 || n.GetPeerGroups() != 0 {
		b := s.Room(512)
		b.Call("connect", unix.SYS_CONNECT, fd, b.Data(address(n.GetPeer(), n.GetPeerGroups())), size)
	}
}
