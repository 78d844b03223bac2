package object

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

// unixRestore makes the Unix sockets of a set: all that have names of their own first, then the connections between
// them, then what has been sent and not read.
type unixRestore struct {
	*Files
	s     *remote.Script
	temps map[uint64]int // sockets that stand for a peer that is gone, by the UnixSocket that was connected to it
}

func (r *Files) restoreSockets(s *remote.Script) error {
	u := &unixRestore{Files: r, s: s, temps: make(map[uint64]int)}
	r.unix = u
	for _, f := range r.set.Files {
		if id := f.GetUnixSocket(); id != 0 {
			r.sockets[id] = r.fds[f.GetId()]
		}
	}
	ids := sortedIDs(r.set.UnixSockets)
	for _, id := range ids {
		if err := r.checkSocket(r.set.UnixSockets[id]); err != nil {
			return fmt.Errorf("socket %d: %w", id, err)
		}
		if _, ok := r.sockets[id]; !ok {
			r.sockets[id] = r.stage()
		}
	}
	pending := make(map[uint64]bool)
	for _, id := range ids {
		for _, client := range r.set.UnixSockets[id].GetPending() {
			pending[client] = true
		}
	}
	for _, step := range []func(*dump.UnixSocket) error{u.makeNamed, u.connectStream, u.makePending} {
		for _, id := range ids {
			sock := r.set.UnixSockets[id]
			if pending[id] && sock.GetState() == dump.UnixSocket_CONNECTED {
				continue // its listener's
			}
			if err := step(sock); err != nil {
				return fmt.Errorf("socket %d: %w", id, err)
			}
		}
	}
	return nil
}

// checkSocket looks at everything in a record that is used later.
func (r *Files) checkSocket(u *dump.UnixSocket) error {
	switch u.GetType() {
	case unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET:
	default:
		return fmt.Errorf("type %d is not valid", u.GetType())
	}
	if len(u.GetName()) > maxSocketName {
		return fmt.Errorf("name of %d bytes is not valid", len(u.GetName()))
	}
	if ref := u.GetPath(); ref != nil {
		if err := checkPath(ref.GetPath()); err != nil {
			return err
		}
	}
	if peer := u.GetPeer(); peer != 0 {
		other := r.set.UnixSockets[peer]
		if other == nil || other.GetType() != u.GetType() || peer == u.GetId() {
			return fmt.Errorf("peer %d is not there", peer)
		}
		if u.GetType() != unix.SOCK_DGRAM && other.GetPeer() != u.GetId() {
			return fmt.Errorf("its peer %d is connected to %d", peer, other.GetPeer())
		}
	}
	for _, id := range u.GetPending() {
		if other := r.set.UnixSockets[id]; id != 0 && (other == nil || other.GetType() != u.GetType() || other.GetPeer() != 0) {
			return fmt.Errorf("pending connection %d is not there", id)
		}
	}
	for _, m := range u.GetQueue() {
		if len(m.GetFrom()) > maxSocketName || len(m.GetFiles()) > maxRights {
			return fmt.Errorf("message with a name of %d bytes and %d descriptors", len(m.GetFrom()), len(m.GetFiles()))
		}
		for _, id := range m.GetFiles() {
			if _, ok := r.fds[id]; !ok {
				return fmt.Errorf("message with file %d, which is not there", id)
			}
		}
	}
	return nil
}

const (
	maxSocketName = 108 // sun_path, unix(7)
	maxRights     = 253 // SCM_MAX_FD
)

func (r *Files) restoreSocketFile(_ *remote.Script, f *dump.File) error {
	if fd, ok := r.sockets[f.GetUnixSocket()]; !ok || fd != r.fds[f.GetId()] {
		return fmt.Errorf("there is no socket %d of its own", f.GetUnixSocket())
	}
	return nil // made with its peers
}

// makeNamed makes a socket that is not connected, or only sends datagrams somewhere.
func (u *unixRestore) makeNamed(sock *dump.UnixSocket) error {
	if sock.GetState() == dump.UnixSocket_CONNECTED && (sock.GetType() != unix.SOCK_DGRAM || u.paired(sock)) {
		return nil
	}
	fd := u.sockets[sock.GetId()]
	u.socket(sock, fd)
	if err := u.bind(sock, fd); err != nil {
		return err
	}
	if sock.GetState() == dump.UnixSocket_LISTENING {
		u.as(sock.GetPeerUid(), sock.GetPeerGid(), func(b *remote.Batch) {
			b.Call("listen", unix.SYS_LISTEN, fd, sock.GetBacklog())
		})
	}
	return nil
}

// paired tells whether a datagram socket is one of a socketpair(2), which has no names.
func (u *unixRestore) paired(sock *dump.UnixSocket) bool {
	other := u.set.UnixSockets[sock.GetPeer()]
	if other == nil { // its peer is gone
		return len(sock.GetName()) == 0
	}
	return other.GetPeer() == sock.GetId() && len(sock.GetName()) == 0 && len(other.GetName()) == 0
}

// connectStream makes a socket that is connected, and its peer, which may be gone.
func (u *unixRestore) connectStream(sock *dump.UnixSocket) error {
	if sock.GetState() != dump.UnixSocket_CONNECTED || sock.GetType() == unix.SOCK_DGRAM && !u.paired(sock) {
		return nil
	}
	other := u.set.UnixSockets[sock.GetPeer()]
	if other != nil && other.GetId() < sock.GetId() {
		return nil // made with that
	}
	fd, peer := u.sockets[sock.GetId()], 0
	if other != nil {
		peer = u.sockets[other.GetId()]
	} else {
		peer = u.stage()
		u.temps[sock.GetId()] = peer
	}
	switch {
	case len(sock.GetName()) == 0 && len(other.GetName()) == 0:
		u.as(sock.GetPeerUid(), sock.GetPeerGid(), func(b *remote.Batch) {
			b.Call("socketpair", unix.SYS_SOCKETPAIR, unix.AF_UNIX, sock.GetType(), 0, b.Space(8))
			u.settle(b, fd, peer)
		})
		u.own(sock, fd)
		if other != nil {
			u.own(other, peer)
		}
		return nil
	case len(sock.GetName()) == 0 || len(other.GetName()) != 0 && u.listener(sock) == nil:
		return u.accept(other, peer, sock, fd)
	}
	return u.accept(sock, fd, other, peer)
}

// listener finds the listening socket that has given a socket its name.
func (u *unixRestore) listener(server *dump.UnixSocket) *dump.UnixSocket {
	for _, id := range sortedIDs(u.set.UnixSockets) {
		l := u.set.UnixSockets[id]
		if l.GetState() == dump.UnixSocket_LISTENING && l.GetType() == server.GetType() && string(l.GetName()) == string(server.GetName()) {
			return l
		}
	}
	return nil
}

// accept connects a client, nil if it is gone, to the listener that a server's end has its name from.
func (u *unixRestore) accept(server *dump.UnixSocket, fd int, client *dump.UnixSocket, clientFD int) error {
	var l int
	listener := u.listener(server)
	if listener != nil {
		l = u.sockets[listener.GetId()]
	} else {
		listener = server
		l = u.stage()
		u.socket(server, l)
		if err := u.bindAside(server, l, func() { // it is not listening any more
			u.s.Call("listen", unix.SYS_LISTEN, l, 1)
			u.connect(server, client, clientFD, server)
		}); err != nil {
			return err
		}
	}
	if l == u.sockets[listener.GetId()] && listener != server {
		if client != nil {
			u.socket(client, clientFD)
			if err := u.bind(client, clientFD); err != nil {
				return err
			}
		} else {
			u.socket(server, clientFD)
		}
		u.connectTo(listener, clientFD, server.GetPeerUid(), server.GetPeerGid())
	}
	b := u.s.Room(1024)
	b.Call("accept", unix.SYS_ACCEPT4, l, 0, 0, 0)
	u.settle(b, fd)
	u.own(server, fd)
	return nil
}
