// Package socket has what sockets that are not Unix sockets have in common: records, options, filters, addresses, and how
// they are made. Their kinds are in packages of their own.
//
// They are read from outside, on copies of their descriptors and by sock_diag(7). They are made by the maker, as what shows who
// made them; then we set them up on copies.
package socket

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// Kind says what kind of socket a descriptor of ours is open on.
func Kind(fd int) (*dump.Socket, error) {
	s := &dump.Socket{}
	for _, part := range []struct {
		name   string
		option int
		value  *uint32
	}{{"family", unix.SO_DOMAIN, &s.Family}, {"type", unix.SO_TYPE, &s.Type}, {"protocol", unix.SO_PROTOCOL, &s.Protocol}} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, part.option)
		if err != nil {
			return nil, fmt.Errorf("%s of a socket: %w", part.name, err)
		}
		*part.value = uint32(v)
	}
	return s, nil
}

// IsSocket tells whether an open file is a socket.
func IsSocket(l *file.Look) bool { return strings.HasPrefix(l.Link, "socket:[") }

// Name names the kind of a socket.
func Name(s *dump.Socket) string {
	switch s.GetFamily() {
	case unix.AF_INET, unix.AF_INET6:
		switch {
		case s.GetType() == unix.SOCK_RAW:
			return "raw socket"
		case s.GetProtocol() == unix.IPPROTO_TCP:
			return "TCP socket"
		case s.GetProtocol() == unix.IPPROTO_MPTCP:
			return "MPTCP socket"
		case s.GetProtocol() == unix.IPPROTO_UDP:
			return "UDP socket"
		case s.GetProtocol() == unix.IPPROTO_UDPLITE:
			return "UDP-Lite socket"
		case s.GetProtocol() == unix.IPPROTO_ICMP, s.GetProtocol() == unix.IPPROTO_ICMPV6:
			return "ICMP socket"
		}
		return fmt.Sprintf("socket of protocol %d", s.GetProtocol())
	case unix.AF_NETLINK:
		return "netlink socket"
	case unix.AF_PACKET:
		return "packet socket"
	}
	return fmt.Sprintf("socket of family %d", s.GetFamily())
}

// Refuse finds what no socket may have.
func (n *Namespace) Refuse(l *file.Look, s *dump.Socket) error {
	if own, err := n.Has(l.FD); err != nil {
		return fmt.Errorf("%s: %w", l.Link, err)
	} else if !own {
		return l.At.Refusal(Name(s), "it is of another network namespace")
	}
	if _, ok, err := filterOf(l.FD); err != nil {
		return fmt.Errorf("filter of %s: %w", l.Link, err)
	} else if !ok {
		return l.At.Refusal(Name(s)+" with an eBPF filter", "")
	}
	return nil
}

// Describe begins the record of a socket, and prepares for [Namespace.Fill].
func Describe(d *file.Descriptors, n *Namespace, f *file.OpenFile, l *file.Look) (*dump.Socket, error) {
	s, err := Kind(l.FD)
	if err != nil {
		return nil, err
	}
	s.Id = l.Stat.Ino
	if s.Uid, s.Gid, err = d.Owned(&l.Stat); err != nil {
		return nil, err
	}
	f.Record.Kind = &dump.File_Socket{Socket: s.Id}
	return s, n.Prepare(s)
}

// Fill notes the options and the filter of a socket, for whose kind the namespace is prepared.
func (n *Namespace) Fill(fd int, s *dump.Socket) (err error) {
	s.Options = n.options(fd, s)
	if s.Filter, _, err = filterOf(fd); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	return nil
}

// Check looks at what every record of a socket has. allowed are the capabilities that the instance may have.
func Check(s *dump.Socket, allowed uint64) error {
	if s.GetFamily() != unix.AF_NETLINK && (s.GetType() == unix.SOCK_RAW || s.GetFamily() == unix.AF_PACKET) && allowed&(1<<unix.CAP_NET_RAW) == 0 {
		return fmt.Errorf("a %s takes CAP_NET_RAW, which the instance may not have", Name(s))
	}
	if err := checkOptions(s, allowed); err != nil {
		return err
	}
	if err := checkFilter(s.GetFilter()); err != nil {
		return err
	}
	for _, a := range []*dump.SocketAddress{s.GetLocal(), s.GetPeer()} {
		if err := CheckAddress(s.GetFamily(), a); err != nil {
			return err
		}
	}
	return nil
}

// Births adds the calls by which the maker makes sockets.
type Births struct {
	*file.Files
	uid, gid uint32 // as which the maker makes them
}

// Make makes a socket at a descriptor of the maker. Its maker is its owner (sock_diag(7), nft's skuid).
func (b *Births) Make(s *remote.Script, sock *dump.Socket, at int) {
	b.as(s, sock.GetUid(), sock.GetGid())
	batch := s.Room(512)
	batch.Call("make "+Name(sock), unix.SYS_SOCKET, sock.GetFamily(), sock.GetType()|unix.SOCK_NONBLOCK, sock.GetProtocol())
	b.Settle(batch, at)
}

func (b *Births) as(s *remote.Script, uid, gid uint32) {
	if uid == b.uid && gid == b.gid {
		return
	}
	b.uid, b.gid = uid, gid
	const same = ^uint32(0)
	s.Call("take the group of a socket", unix.SYS_SETRESGID, same, gid, same) // net.ipv4.ping_group_range asks for it
	s.Call("take the user of a socket", unix.SYS_SETFSUID, uid)
}

// Done lets the maker be root again.
func (b *Births) Done(s *remote.Script) {
	b.as(s, 0, 0)
	s.Call("set dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}

// Take duplicates a descriptor of the maker into our process. The caller closes it.
func (b *Births) Take(at int) (int, error) {
	fd, err := unix.PidfdGetfd(b.Maker().PidFD, at, 0)
	if err != nil {
		return -1, fmt.Errorf("take descriptor %d of the maker: %w", at, err)
	}
	return fd, nil
}

// Sockets finds the sockets of the set that a kind restores, with the maker's descriptors of their files. It refuses what two
// files refer to.
func (b *Births) Sockets(mine func(*dump.Socket) bool) (map[uint64]int, error) {
	places := make(map[uint64]int)
	for _, id := range object.SortedIDs(b.Set().Files) {
		f := b.Set().Files[id]
		s := b.Set().Sockets[f.GetSocket()]
		if s == nil || !mine(s) {
			continue
		}
		if places[s.GetId()] != 0 {
			return nil, fmt.Errorf("socket %d: it is that of two files", s.GetId())
		}
		fd, err := b.FD(id)
		if err != nil {
			return nil, err
		}
		places[s.GetId()] = fd
	}
	return places, nil
}
