// Package unixsock has Unix sockets (unix(7)): their names and files, who is connected to whom, and the messages between
// them with the descriptors in flight.
//
// They are dumped by sock_diag(7) and by peeking at their queues. They are restored by the maker, which binds, connects and
// accepts them anew and sends the messages again.
package unixsock

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/kmem"
	"vps/object"
	"vps/object/file"
)

// dumper dumps the Unix sockets of an instance.
type dumper struct {
	*file.Descriptors
	kernel  *kmem.Reader
	sockets map[uint64]*socketDump
	peers   map[uint64]int32       // pids inside of sockets' peers, by socket: what Ask found
	handles map[uint64]file.Handle // a descriptor of each socket
	byInode map[uint64]*unixDiag   // nil: not listed yet
	waiting map[uint64]*waiting    // at listeners, by socket
}

// NewDumper makes the Unix sockets' part of a dump. kernel may be nil.
func NewDumper(kernel *kmem.Reader) file.DumpKind {
	return func(d *file.Descriptors) file.Dumper {
		return &dumper{Descriptors: d, kernel: kernel, sockets: make(map[uint64]*socketDump), peers: make(map[uint64]int32),
			handles: make(map[uint64]file.Handle), waiting: make(map[uint64]*waiting)}
	}
}

// Claims claims every Unix socket.
func (d *dumper) Claims(l *file.Look) (bool, error) {
	if !strings.HasPrefix(l.Link, "socket:[") {
		return false, nil
	}
	family, err := unix.GetsockoptInt(l.FD, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return false, fmt.Errorf("family of %s: %w", l.Link, err)
	}
	return family == unix.AF_UNIX, nil
}

// socketDump is a Unix socket of which a descriptor has been found.
type socketDump struct {
	file   *file.OpenFile
	record *dump.UnixSocket
	diag   *unixDiag
	queued bool // its queue has been read
}

// Dump notes a socket and what its descriptor tells of it.
func (d *dumper) Dump(f *file.OpenFile, l *file.Look) error {
	kind, err := unix.GetsockoptInt(l.FD, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("type of %s: %w", l.Link, err)
	}
	s := &socketDump{file: f, record: &dump.UnixSocket{Id: l.Stat.Ino, Type: uint32(kind), Mode: l.Stat.Mode & 0o7777}}
	if s.record.Uid, s.record.Gid, err = d.Owned(&l.Stat); err != nil {
		return err
	}
	if s.record.Options, err = socketOptions(l.FD, kind); err != nil {
		return fmt.Errorf("options of %s: %w", l.Link, err)
	}
	if peer, err := unix.GetsockoptUcred(l.FD, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && peer.Pid != 0 {
		s.record.PeerPid = d.peerPID(l.Stat.Ino, peer.Pid)
		if s.record.PeerUid, s.record.PeerGid, err = d.Owned(&unix.Stat_t{Uid: peer.Uid, Gid: peer.Gid}); err != nil {
			return err
		}
	}
	d.sockets[l.Stat.Ino] = s
	f.Record.Kind = &dump.File_UnixSocket{UnixSocket: s.record.Id}
	return nil
}

// Finish finds out how the sockets hang together, and reads their queues.
func (d *dumper) Finish() error {
	if len(d.sockets) == 0 {
		return nil
	}
	if err := d.list(); err != nil {
		return err
	}
	for more := true; more; { // queues hold descriptors of further sockets
		more = false
		for _, s := range object.Sorted(d.sockets) {
			if s.queued {
				continue
			}
			more, s.queued = true, true
			if s.diag = d.byInode[s.record.Id]; s.diag == nil {
				return s.file.At.Refusal(s.file.Link, "it is of another network namespace")
			}
			if err := d.finishSocket(s); err != nil {
				return fmt.Errorf("%s: %w", s.file.Link, err)
			}
		}
	}
	pending := make(map[uint64]bool)
	for _, s := range d.sockets {
		if s.record.State != dump.UnixSocket_LISTENING {
			continue
		}
		if err := d.findPending(s, pending); err != nil {
			return err
		}
	}
	for _, s := range object.Sorted(d.sockets) {
		d.findPeer(s, pending)
	}
	for _, s := range object.Sorted(d.sockets) {
		if err := d.refuseNameless(s); err != nil {
			return err
		}
		if err := d.Sink().Put(s.record.Id, s.record); err != nil {
			return err
		}
	}
	return nil
}

// list lists all Unix sockets of the instance's network namespace.
func (d *dumper) list() error {
	if d.byInode != nil {
		return nil
	}
	var all []*unixDiag
	err := object.InNamespace(d.Init(), "net", unix.CLONE_NEWNET, func() (err error) {
		all, err = readUnixDiag()
		return err
	})
	if err != nil {
		return fmt.Errorf("list Unix sockets: %w", err)
	}
	d.byInode = make(map[uint64]*unixDiag)
	for _, diag := range all {
		d.byInode[diag.ino] = diag
	}
	return nil
}

// findPeer notes what a socket is connected to.
func (d *dumper) findPeer(s *socketDump, pending map[uint64]bool) {
	if s.record.State != dump.UnixSocket_CONNECTED {
		return
	}
	switch peer := s.diag.peer; {
	case d.sockets[peer] != nil:
		s.record.Peer = peer
	case peer != 0:
		s.record.ExternalPeer = true
	case !pending[s.record.Id]:
		s.record.PeerClosed = true
	}
}

// refuseNameless refuses datagram sockets that nobody could connect to, or send to, by a name.
func (d *dumper) refuseNameless(s *socketDump) error {
	var peer *dump.UnixSocket
	if p := d.sockets[s.record.Peer]; p != nil {
		peer = p.record
	}
	switch {
	case s.record.Type != unix.SOCK_DGRAM || paired(s.record, peer):
	case peer != nil && len(peer.Name) == 0:
		return s.file.At.Refusal(s.file.Link, "connected to a socket without a name that has another peer")
	case len(s.record.Name) == 0 && len(s.record.Queue) > 0:
		return s.file.At.Refusal(s.file.Link, "holds messages of others than its peer, but has no name")
	}
	return nil
}

// finishSocket fills in what the kernel tells of a socket, and its queue.
func (d *dumper) finishSocket(s *socketDump) error {
	u := s.record
	u.Name = s.diag.name
	u.Shutdown = uint32(s.diag.shutdown)
	switch {
	case s.diag.state == stateListen:
		u.State = dump.UnixSocket_LISTENING
		u.Backlog = s.diag.sent // of a listener this is its backlog
	case s.diag.connected:
		u.State = dump.UnixSocket_CONNECTED
	}
	fd, err := s.file.At.Copy()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(u.Name) > 0 && u.Name[0] != 0 {
		if err := d.findSocketFile(s, fd); err != nil {
			return err
		}
	}
	if u.State == dump.UnixSocket_LISTENING || u.Type != unix.SOCK_DGRAM && u.State == dump.UnixSocket_UNCONNECTED {
		return nil
	}
	return d.readQueue(u, fd)
}

// sockOption is a socket option that is restored when it is not what a new socket has.
type sockOption struct {
	name, set int // number for getting and for setting
	size      int
	halve     bool // the kernel doubles what is set (socket(7))
}

// restorableOptions is in the order of setting.
var restorableOptions = []sockOption{
	{unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, 4, true},
	{unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, 4, true},
	{unix.SO_PASSCRED, unix.SO_PASSCRED, 4, false},
	{unix.SO_PASSSEC, unix.SO_PASSSEC, 4, false},
	{unix.SO_PASSPIDFD, unix.SO_PASSPIDFD, 4, false},
	{unix.SO_PASSRIGHTS, unix.SO_PASSRIGHTS, 4, false},
	{unix.SO_RCVTIMEO, unix.SO_RCVTIMEO, 16, false},
	{unix.SO_SNDTIMEO, unix.SO_SNDTIMEO, 16, false},
	{unix.SO_RCVLOWAT, unix.SO_RCVLOWAT, 4, false},
	{unix.SO_PEEK_OFF, unix.SO_PEEK_OFF, 4, false},
	{unix.SO_KEEPALIVE, unix.SO_KEEPALIVE, 4, false},
	{unix.SO_PRIORITY, unix.SO_PRIORITY, 4, false},
	{unix.SO_LINGER, unix.SO_LINGER, 8, false},
	{unix.SO_TIMESTAMP, unix.SO_TIMESTAMP, 4, false},
	{unix.SO_TIMESTAMPNS, unix.SO_TIMESTAMPNS, 4, false},
}

// socketOptions reads the options that a socket has been given.
func socketOptions(fd, kind int) ([]*dump.SockOpt, error) {
	fresh, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fresh)
	var options []*dump.SockOpt
	for _, o := range restorableOptions {
		value, err := getOption(fd, o)
		if err != nil {
			continue // this kernel does not have it
		}
		usual, err := getOption(fresh, o)
		if err != nil || value == usual {
			continue
		}
		options = append(options, &dump.SockOpt{Level: unix.SOL_SOCKET, Name: int32(o.name), Value: []byte(value)})
	}
	return options, nil
}

func getOption(fd int, o sockOption) (string, error) {
	value := make([]byte, o.size)
	length := uint32(o.size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(o.name),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return "", errno
	}
	return string(value[:length]), nil
}

// readQueue reads what a socket has received and nobody has read, and leaves it there.
func (d *dumper) readQueue(u *dump.UnixSocket, fd int) error {
	old, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if err != nil {
		return fmt.Errorf("SO_PEEK_OFF: %w", err)
	}
	// With an offset, each peek goes on where the last one ended.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0); err != nil {
		return fmt.Errorf("SO_PEEK_OFF: %w", err)
	}
	defer unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, old)
	buf := make([]byte, 256<<10)
	offset := 0
	for {
		m, size, err := d.peek(fd, buf)
		switch {
		case err == unix.EAGAIN || err == unix.EINVAL: // EINVAL: not connected
			return nil
		case err == unix.ECONNRESET:
			continue // an error that was due; it is told once
		case err != nil:
			return fmt.Errorf("peek at byte %d: %w", offset, err)
		case size > len(buf): // a message with boundaries
			buf = make([]byte, size)
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, offset); err != nil {
				return fmt.Errorf("SO_PEEK_OFF: %w", err)
			}
			continue
		case size == 0 && u.Type == unix.SOCK_STREAM, m == nil:
			return nil // the end
		}
		offset += size
		if size == 0 && u.Shutdown&1 != 0 && u.Type == unix.SOCK_SEQPACKET {
			return nil // the end looks like an empty message
		}
		u.Queue = append(u.Queue, m)
	}
}

// peek looks at the next message. size is its true length.
func (d *dumper) peek(fd int, buf []byte) (m *dump.Message, size int, err error) {
	control := make([]byte, unix.CmsgSpace(4*253)+256) // SCM_MAX_FD
	received, err := recvmsg(fd, buf, control, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_TRUNC|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, 0, err
	}
	m = &dump.Message{From: received.from} // a stream's are the peer's name: not used
	list, err := unix.ParseSocketControlMessage(received.control)
	if err != nil {
		return nil, 0, fmt.Errorf("control message: %w", err)
	}
	truncated := received.size > len(buf)
	for i := range list {
		c := &list[i]
		if c.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch c.Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(c)
			if err != nil {
				return nil, 0, fmt.Errorf("SCM_RIGHTS: %w", err)
			}
			if err := d.addRights(m, fds, truncated); err != nil {
				return nil, 0, err
			}
		case unix.SCM_CREDENTIALS:
			who, err := unix.ParseUnixCredentials(c)
			if err != nil {
				return nil, 0, fmt.Errorf("SCM_CREDENTIALS: %w", err)
			}
			m.HasCreds = true
			m.Pid = uint32(d.Inside(int(who.Pid)))
			if m.Uid, m.Gid, err = d.Owned(&unix.Stat_t{Uid: who.Uid, Gid: who.Gid}); err != nil {
				return nil, 0, err
			}
		case unix.SCM_PIDFD:
			if len(c.Data) >= 4 {
				unix.Close(int(int32(binary.NativeEndian.Uint32(c.Data))))
			}
		}
	}
	if truncated {
		return m, received.size, nil
	}
	m.Data = append([]byte(nil), buf[:received.size]...)
	return m, received.size, nil
}

// addRights adds the open files that travel in a message; fds are copies that become ours.
func (d *dumper) addRights(m *dump.Message, fds []int, drop bool) error {
	for i, fd := range fds {
		if drop {
			unix.Close(fd)
			continue
		}
		f, err := d.Received(fd)
		if err != nil {
			for _, rest := range fds[i+1:] {
				unix.Close(rest)
			}
			return fmt.Errorf("descriptor in flight: %w", err)
		}
		m.Files = append(m.Files, f.ID)
	}
	return nil
}
