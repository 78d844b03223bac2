package unixsock

import (
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/kmem"
	"vps/object"
	"vps/object/file"
)

// waiting is what waits at a listener to be accepted.
type waiting struct {
	clients     []uint64 // inode numbers; 0: it is gone
	connections []*dump.Connection
}

// Busy tells which listener has a connection that cannot be dumped at the moment.
func (d *dumper) Busy() error {
	if len(d.handles) == 0 {
		return nil
	}
	if err := d.list(); err != nil {
		return err
	}
	for inode, at := range d.handles {
		if diag := d.byInode[inode]; diag != nil && diag.state == stateListen {
			if _, err := d.findWaiting(diag, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// findPending notes the connections that nobody has accepted yet.
func (d *dumper) findPending(s *socketDump, pending map[uint64]bool) error {
	found, err := d.findWaiting(s.diag, s.file.At)
	if err != nil {
		return err
	}
	s.record.Waiting = found.connections
	for _, inode := range found.clients {
		if d.sockets[inode] == nil {
			inode = 0 // gone, or not of the instance
		}
		pending[inode] = true
		s.record.Pending = append(s.record.Pending, inode)
	}
	return nil
}

// findWaiting finds the connections that wait at a listener. What their clients have sent lies where no descriptor leads: it is
// read out of the kernel's memory. Where that cannot be done, there must be nothing.
func (d *dumper) findWaiting(listener *unixDiag, at file.Handle) (*waiting, error) {
	if found := d.waiting[listener.ino]; found != nil {
		return found, nil
	}
	found := &waiting{clients: listener.pending}
	why := ""
	switch {
	case len(listener.pending) == 0:
	case d.kernel == nil:
		why = carriesData(listener, d.byInode)
	default:
		var err error
		if found, why, err = d.readWaiting(at); err != nil {
			return nil, fmt.Errorf("connections that wait at %s: %w", printable(listener.name), err)
		}
	}
	if why != "" {
		return nil, fmt.Errorf("%w: %w", object.ErrBusy, at.Refusal("listening socket "+printable(listener.name), why))
	}
	d.waiting[listener.ino] = found
	return found, nil
}

// carriesData tells why a connection that waits may carry data, as far as sock_diag(7) shows.
func carriesData(listener *unixDiag, byInode map[uint64]*unixDiag) string {
	for _, inode := range listener.pending {
		switch client := byInode[inode]; {
		case client == nil:
			return "a connection that is not accepted yet may carry data: its client is gone"
		case client.sent != 0:
			return "a connection that is not accepted yet carries data"
		}
	}
	return ""
}

// readWaiting reads the connections that wait at a listener. why is what keeps one from being dumped.
// net/unix/af_unix.c, unix_stream_connect: each is a message in the listener's queue, which belongs to the socket that
// accept(2) would give.
func (d *dumper) readWaiting(at file.Handle) (found *waiting, why string, err error) {
	fd, err := at.Copy()
	if err != nil {
		return nil, "", err
	}
	defer unix.Close(fd)
	w := d.kernel.Walk()
	listener := w.File(fd).Member("private_data").Deref().As("socket").Member("sk").Deref()
	level := listener.Member("sk_peer_pid").Deref().Member("level").Uint()
	found = &waiting{}
	for skb := range messages(listener) {
		server := skb.Member("sk").Deref()
		c := &dump.Connection{}
		if c.Pid, c.Uid, c.Gid, err = d.credentials(server.Member("sk_peer_pid").Deref(), server.Member("sk_peer_cred").Deref(), level); err != nil {
			return nil, "", err
		}
		for skb := range messages(server) {
			m, what, err := d.readMessage(skb, level)
			if err != nil {
				return nil, "", err
			}
			if what != "" {
				return nil, "a connection that is not accepted yet carries " + what, w.Err()
			}
			c.Queue = append(c.Queue, m)
		}
		found.connections = append(found.connections, c)
		found.clients = append(found.clients, socketInode(server.As("unix_sock").Member("peer").Deref()))
	}
	return found, "", w.Err()
}

// messages returns what lies in the queue of a struct sock.
func messages(sock kmem.Value) iter.Seq[kmem.Value] {
	const most = 1 << 20
	return func(yield func(kmem.Value) bool) {
		head := sock.Member("sk_receive_queue")
		skb := head.Member("next").Deref()
		for n := 0; n < most && !skb.Null() && skb.Address() != head.Address() && yield(skb); n++ {
			skb = skb.Member("next").Deref()
		}
	}
}

// maxMessage bounds what is read of one message: more than the kernel puts into one piece of memory.
const maxMessage = 1 << 20

// readMessage reads a struct sk_buff; what is what it carries that cannot be read.
func (d *dumper) readMessage(skb kmem.Value, level uint64) (m *dump.Message, what string, err error) {
	size := int(skb.Member("len").Uint())
	parms := skb.Member("cb").As("unix_skb_parms")
	switch {
	case parms.Member("fp").Uint() != 0:
		return nil, "descriptors", nil
	case skb.Member("data_len").Uint() != 0 || size > maxMessage:
		return nil, "a long message", nil
	}
	m = &dump.Message{Data: skb.Member("data").Deref().Bytes(size)}
	pid := parms.Member("pid").Deref()
	if pid.Null() {
		return m, "", nil
	}
	m.HasCreds = true
	m.Pid = numberAt(pid, level)
	ids := unix.Stat_t{Uid: uint32(parms.Member("uid", "val").Uint()), Gid: uint32(parms.Member("gid", "val").Uint())}
	m.Uid, m.Gid, err = d.Owned(&ids)
	return m, "", err
}

// credentials translates a struct pid and a struct cred, either of which may be missing.
func (d *dumper) credentials(pid, cred kmem.Value, level uint64) (inside, uid, gid uint32, err error) {
	if pid.Null() || cred.Null() {
		return 0, 0, 0, nil
	}
	ids := unix.Stat_t{Uid: uint32(cred.Member("euid", "val").Uint()), Gid: uint32(cred.Member("egid", "val").Uint())}
	uid, gid, err = d.Owned(&ids)
	return numberAt(pid, level), uid, gid, err
}

// numberAt is the number of a struct pid in the namespaces of a level; 0: it has none there.
func numberAt(pid kmem.Value, level uint64) uint32 {
	if pid.Member("level").Uint() != level {
		return 0
	}
	return uint32(pid.Member("numbers").Index(int(level)).Member("nr").Uint())
}

// socketInode is the inode number of a struct sock; 0: nobody has a descriptor for it any more.
func socketInode(sock kmem.Value) uint64 {
	if sock.Null() || sock.Member("sk_socket").Uint() == 0 {
		return 0
	}
	// struct socket is the first member of struct socket_alloc (include/net/sock.h).
	return sock.Member("sk_socket").Deref().As("socket_alloc").Member("vfs_inode", "i_ino").Uint()
}
