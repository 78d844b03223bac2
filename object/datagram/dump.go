// Package datagram has the sockets that carry messages, without connections: UDP, UDP-Lite, ICMP and raw sockets, packet sockets,
// netlink sockets.
package datagram

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/file"
	"vps/object/socket"
)

// dumper dumps the sockets of an instance. Each is written at once.
type dumper struct {
	*file.Descriptors
	ns *socket.Namespace

	read    bool // what follows has been read
	diags   map[uint64]socket.Diag
	groups  []group
	packets map[uint64]*dump.Packet // nil: not read yet
	portIDs *netlinkPorts           // nil: not read yet
}

// NewDumper makes these sockets' part of a dump.
func NewDumper(files *file.Descriptors) file.Dumper {
	return &dumper{Descriptors: files, ns: socket.NewNamespace(files.Init())}
}

// Claims claims datagram, raw, netlink and packet sockets.
func (d *dumper) Claims(l *file.Look) (bool, error) {
	if !socket.IsSocket(l) {
		return false, nil
	}
	s, err := socket.Kind(l.FD)
	if err != nil {
		return false, fmt.Errorf("%s: %w", l.Link, err)
	}
	if !restorable(s) {
		return false, nil
	}
	if err := d.ns.Refuse(l, s); err != nil {
		return true, err
	}
	switch s.GetFamily() {
	case unix.AF_NETLINK:
		return true, d.refuseNetlink(l)
	case unix.AF_INET, unix.AF_INET6:
		return true, refuseDatagram(l, s)
	}
	return true, nil
}

// restorable tells whether this package restores sockets of a kind.
func restorable(s *dump.Socket) bool {
	switch s.GetFamily() {
	case unix.AF_NETLINK, unix.AF_PACKET:
		return true
	case unix.AF_INET, unix.AF_INET6:
		switch s.GetType() {
		case unix.SOCK_RAW:
			return true
		case unix.SOCK_DGRAM:
			switch s.GetProtocol() {
			case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
				return true
			}
		}
	}
	return false
}

// refuseDatagram refuses a datagram that is being put together: nobody can read it.
func refuseDatagram(l *file.Look, s *dump.Socket) error {
	if s.GetProtocol() != unix.IPPROTO_UDP && s.GetProtocol() != unix.IPPROTO_UDPLITE {
		return nil
	}
	pending, err := unix.IoctlGetInt(l.FD, unix.SIOCOUTQ)
	if err != nil {
		return fmt.Errorf("SIOCOUTQ of %s: %w", l.Link, err)
	}
	if pending > 0 {
		return l.At.Refusal(socket.Name(s), "a corked datagram, or one that waits to be sent")
	}
	return nil
}

// Dump writes a socket.
func (d *dumper) Dump(f *file.OpenFile, l *file.Look) error {
	s, err := socket.Describe(d.Descriptors, d.ns, f, l)
	if err != nil {
		return err
	}
	if err := d.ns.Fill(l.FD, s); err != nil {
		return err
	}
	switch s.GetFamily() {
	case unix.AF_NETLINK:
		err = d.netlink(l, s)
	case unix.AF_PACKET:
		err = d.packet(l, s)
	default:
		err = d.datagram(l, s)
	}
	if err != nil {
		return err
	}
	return d.Sink().Put(s.GetId(), s)
}

// Finish has nothing left to do.
func (d *dumper) Finish() error { return nil }

// datagram reads what an Internet socket without a connection has of its own.
func (d *dumper) datagram(l *file.Look, s *dump.Socket) error {
	if err := d.survey(); err != nil {
		return fmt.Errorf("survey of the network: %w", err)
	}
	var err error
	if s.Local, err = socket.Local(l.FD); err != nil {
		return err
	}
	if s.Peer, err = socket.Peer(l.FD); err != nil {
		return err
	}
	if s.Memberships, err = memberships(l.FD, s.GetFamily(), d.groups); err != nil {
		return err
	}
	s.Shutdown = d.shutdown(l.FD, s)
	if s.GetType() == unix.SOCK_RAW { // what it has heard is lost: nobody can say it again without others hearing it too
		if ip := socket.IP(s.GetLocal()); ip.IsUnspecified() {
			s.Local = nil // the port is the protocol
		}
		return nil
	}
	s.Queue, err = readQueue(l.FD, s)
	return err
}

// shutdown tells which ways have been shut down. That only writing is, poll(2) does not tell.
func (d *dumper) shutdown(fd int, s *dump.Socket) uint32 {
	if diag, ok := d.diags[s.GetId()]; ok {
		return diag.Shutdown
	}
	const reading, both = 1, 3
	switch events := file.Poll(fd, unix.POLLRDHUP); {
	case events&unix.POLLHUP != 0:
		return both
	case events&unix.POLLRDHUP != 0:
		return reading
	}
	return 0
}

// survey reads what is told of all sockets together.
func (d *dumper) survey() (err error) {
	if d.read {
		return nil
	}
	d.read, d.diags = true, make(map[uint64]socket.Diag)
	if d.groups, err = joined(d.ns); err != nil {
		return err
	}
	return d.ns.Do(func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE} {
				list, err := socket.ReadDiag(family, protocol, false)
				if err != nil {
					return err
				}
				for _, diag := range list {
					d.diags[uint64(diag.Ino)] = diag
				}
			}
		}
		return nil
	})
}
