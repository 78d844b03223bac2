package unixsock

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// restorer makes the Unix sockets of a set: all that have names of their own first, then the connections between
// them, then what has been sent and not read.
type restorer struct {
	*file.Files
	s       *remote.Script
	sockets map[uint64]int // by UnixSocket records
	temps   map[uint64]int // sockets that stand for a peer that is gone, by the UnixSocket that was connected to it

	enlarged map[int]bool   // sockets whose SO_SNDBUF is not theirs
	deleted  map[uint64]int // the files of UnixSockets whose files are deleted, open with O_PATH

	root, scratch, spare int // descriptors of the maker, 0 for none yet: see keepRoot, openScratch, sender

	waiting map[uint64][]int // clients that wait at a listener, by its UnixSocket
	gone    []int            // those that are not of the instance

	box   *postBox   // nil: there are no messages
	stubs file.Stubs // of the processes, once they are born
}

// NewRestorer makes the Unix sockets' part of a restore.
func NewRestorer(files *file.Files) file.Restorer {
	return &restorer{
		Files: files, sockets: make(map[uint64]int), temps: make(map[uint64]int), enlarged: make(map[int]bool),
		deleted: make(map[uint64]int), waiting: make(map[uint64][]int),
	}
}

// Needs counts each socket, one for a peer that is gone, and two for a listener and file that are; clients that wait and are
// gone; and root, scratch, spare, the post box.
func (u *restorer) Needs() int {
	n := 4*len(u.Set().UnixSockets) + 4
	for _, sock := range u.Set().UnixSockets {
		n += len(sock.GetPending())
	}
	return n
}

// Claims claims Unix sockets.
func (u *restorer) Claims(f *dump.File) bool {
	_, ok := f.GetKind().(*dump.File_UnixSocket)
	return ok
}

// Close gives up what is shared with the maker.
func (u *restorer) Close() error {
	if u.box == nil {
		return nil
	}
	defer func() { u.box = nil }()
	return unix.Munmap(u.box.mem)
}

// Make makes the sockets. Nothing has been sent yet, nor anything ended: that is for [restorer.Born].
func (u *restorer) Make(s *remote.Script) error {
	u.s = s
	set := u.Set()
	for _, f := range set.Files {
		if id := f.GetUnixSocket(); set.UnixSockets[id] != nil {
			fd, err := u.FD(f.GetId())
			if err != nil {
				return err
			}
			u.sockets[id] = fd
		}
	}
	ids := object.SortedIDs(set.UnixSockets)
	for _, id := range ids {
		if err := u.checkSocket(set.UnixSockets[id]); err != nil {
			return fmt.Errorf("socket %d: %w", id, err)
		}
		if _, ok := u.sockets[id]; !ok {
			u.sockets[id] = u.Stage()
		}
	}
	pending := make(map[uint64]bool)
	for _, id := range ids {
		for _, client := range set.UnixSockets[id].GetPending() {
			pending[client] = true
		}
	}
	for _, step := range []func(*dump.UnixSocket) error{u.makeNamed, u.connectStream, u.makePending} {
		for _, id := range ids {
			sock := set.UnixSockets[id]
			if pending[id] && sock.GetState() == dump.UnixSocket_CONNECTED {
				continue // its listener's
			}
			s.About("socket %d", id)
			if err := step(sock); err != nil {
				return file.Named(fmt.Sprintf("socket %d", id), err)
			}
		}
	}
	return nil
}

// checkSocket looks at everything in a record that is used later.
func (r *restorer) checkSocket(u *dump.UnixSocket) error {
	switch u.GetType() {
	case unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET:
	default:
		return fmt.Errorf("type %d is not valid", u.GetType())
	}
	if err := checkName(u); err != nil {
		return err
	}
	if u.GetPeerPid() >= object.MaxPID {
		return fmt.Errorf("peer with pid %d", u.GetPeerPid())
	}
	if peer := u.GetPeer(); peer != 0 {
		other := r.Set().UnixSockets[peer]
		if other == nil || other.GetType() != u.GetType() || other == u && (u.GetType() != unix.SOCK_DGRAM || len(u.GetName()) == 0) {
			return fmt.Errorf("peer %d is not there", peer)
		}
		if u.GetType() != unix.SOCK_DGRAM && other.GetPeer() != u.GetId() {
			return fmt.Errorf("its peer %d is connected to %d", peer, other.GetPeer())
		}
	}
	for _, id := range u.GetPending() {
		if other := r.Set().UnixSockets[id]; id != 0 && (other == nil || other.GetType() != u.GetType() || other.GetPeer() != 0 ||
			u.GetState() != dump.UnixSocket_LISTENING || other.GetState() != dump.UnixSocket_CONNECTED) {
			return fmt.Errorf("pending connection %d is not there", id)
		}
	}
	if len(u.GetWaiting()) > len(u.GetPending()) {
		return fmt.Errorf("%d connections wait, %d are pending", len(u.GetWaiting()), len(u.GetPending()))
	}
	for _, c := range u.GetWaiting() {
		if c.GetPid() >= object.MaxPID {
			return fmt.Errorf("connection by pid %d", c.GetPid())
		}
		if err := r.checkQueue(c.GetQueue()); err != nil {
			return err
		}
	}
	return r.checkQueue(u.GetQueue())
}

func (r *restorer) checkQueue(queue []*dump.Message) error {
	for _, m := range queue {
		if len(m.GetFrom()) > maxSocketName || len(m.GetFiles()) > maxRights {
			return fmt.Errorf("message with a name of %d bytes and %d descriptors", len(m.GetFrom()), len(m.GetFiles()))
		}
		if m.GetPid() >= object.MaxPID {
			return fmt.Errorf("message from pid %d", m.GetPid())
		}
		for _, id := range m.GetFiles() {
			if _, err := r.FD(id); err != nil {
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

// Restore finds a socket's only open file made.
func (u *restorer) Restore(_ *remote.Script, f *dump.File, at int) error {
	if fd, ok := u.sockets[f.GetUnixSocket()]; !ok || fd != at {
		return fmt.Errorf("there is no socket %d of its own", f.GetUnixSocket())
	}
	return nil // made with its peers
}

// makeNamed makes a socket that is not connected, or only sends datagrams somewhere.
func (u *restorer) makeNamed(sock *dump.UnixSocket) error {
	if sock.GetState() == dump.UnixSocket_CONNECTED && (sock.GetType() != unix.SOCK_DGRAM || u.paired(sock)) {
		return nil
	}
	fd := u.sockets[sock.GetId()]
	u.socket(sock.GetType(), fd)
	u.own(sock, fd)
	if err := u.bind(sock, fd); err != nil {
		return err
	}
	if sock.GetState() == dump.UnixSocket_LISTENING {
		u.as(u.peerOf(sock), func(b *remote.Batch) {
			b.Call("listen", unix.SYS_LISTEN, fd, sock.GetBacklog())
		})
	}
	return nil
}

func (u *restorer) paired(sock *dump.UnixSocket) bool {
	return paired(sock, u.Set().UnixSockets[sock.GetPeer()])
}

// paired tells whether a datagram socket and its peer, nil if that is gone, are the two of a socketpair(2): connect(2)
// cannot lead to one without a name.
func paired(sock, peer *dump.UnixSocket) bool {
	if peer == nil {
		return len(sock.GetName()) == 0
	}
	return peer.GetPeer() == sock.GetId() && (len(sock.GetName()) == 0 || len(peer.GetName()) == 0)
}

// connectStream makes a socket that is connected, and its peer, which may be gone.
func (u *restorer) connectStream(sock *dump.UnixSocket) error {
	if sock.GetState() != dump.UnixSocket_CONNECTED || sock.GetType() == unix.SOCK_DGRAM && !u.paired(sock) {
		return nil
	}
	other := u.Set().UnixSockets[sock.GetPeer()]
	if other != nil && other.GetId() < sock.GetId() {
		return nil // made with that
	}
	fd, peer := u.sockets[sock.GetId()], 0
	if other != nil {
		peer = u.sockets[other.GetId()]
	} else {
		peer = u.Stage()
		u.temps[sock.GetId()] = peer
	}
	switch {
	case sock.GetType() == unix.SOCK_DGRAM, len(sock.GetName()) == 0 && len(other.GetName()) == 0:
		return u.pair(sock, fd, other, peer)
	case len(sock.GetName()) == 0, len(other.GetName()) != 0 && u.listener(sock) == nil:
		return u.accept(other, peer, sock, fd)
	}
	return u.accept(sock, fd, other, peer)
}

// pair makes two sockets that are connected to each other; the second is nil if it is gone.
func (u *restorer) pair(sock *dump.UnixSocket, fd int, other *dump.UnixSocket, otherFD int) error {
	u.as(u.peerOf(sock), func(b *remote.Batch) {
		b.Call("socketpair", unix.SYS_SOCKETPAIR, unix.AF_UNIX, sock.GetType()|unix.SOCK_NONBLOCK, 0, b.Space(8))
		u.Settle(b, fd, otherFD)
	})
	u.own(sock, fd)
	if other != nil {
		u.own(other, otherFD)
		if err := u.bind(other, otherFD); err != nil {
			return err
		}
	}
	return u.bind(sock, fd)
}

// listener finds the listening socket that has given a socket its name.
func (u *restorer) listener(server *dump.UnixSocket) *dump.UnixSocket {
	for _, id := range object.SortedIDs(u.Set().UnixSockets) {
		l := u.Set().UnixSockets[id]
		if l.GetState() == dump.UnixSocket_LISTENING && l.GetType() == server.GetType() && string(l.GetName()) == string(server.GetName()) {
			return l
		}
	}
	return nil
}

// accept connects a client, nil if it is gone, and accepts it from a listener with the name of the server's end.
func (u *restorer) accept(server *dump.UnixSocket, fd int, client *dump.UnixSocket, clientFD int) error {
	live := u.listener(server)
	u.socket(server.GetType(), clientFD)
	if client != nil {
		u.own(client, clientFD)
		if err := u.bind(client, clientFD); err != nil {
			return err
		}
	}
	if live != nil {
		u.connect(clientFD, live, u.peerOf(server))
		u.take(u.sockets[live.GetId()], fd)
	} else {
		l, bound := u.Stage(), u.Stage() // its listener is gone: one for the moment
		u.socket(server.GetType(), l)
		u.bindAside(server.GetName(), l, bound)
		u.as(u.peerOf(client), func(b *remote.Batch) { b.Call("listen", unix.SYS_LISTEN, l, 1) })
		name := server.GetName()
		if name[0] != 0 {
			name = []byte(file.FDPath(bound))
		}
		u.connectTo(clientFD, spot{}, name, u.peerOf(server))
		u.take(l, fd)
		u.s.Call("close", unix.SYS_CLOSE, l)
	}
	u.own(server, fd)
	return nil
}

func (u *restorer) take(listener, fd int) {
	b := u.s.Room(512)
	b.Call("accept", unix.SYS_ACCEPT4, listener, 0, 0, 0)
	u.Settle(b, fd)
}

// makePending connects the clients that a listener has not accepted.
func (u *restorer) makePending(l *dump.UnixSocket) error {
	for i, id := range l.GetPending() {
		who := u.holder(id)
		if i < len(l.GetWaiting()) {
			c := l.GetWaiting()[i]
			who = object.Author{PID: u.Set().Known(c.GetPid()), UID: c.GetUid(), GID: c.GetGid()}
		}
		fd, ours := u.sockets[id]
		if !ours { // it has closed its end meanwhile
			fd = u.Stage()
			u.gone = append(u.gone, fd)
		}
		u.waiting[l.GetId()] = append(u.waiting[l.GetId()], fd)
		u.socket(l.GetType(), fd)
		if client := u.Set().UnixSockets[id]; client != nil {
			u.own(client, fd)
			if err := u.bind(client, fd); err != nil {
				return err
			}
		}
		u.connect(fd, l, who)
	}
	return nil
}

// socket makes a socket, which never blocks the maker.
func (u *restorer) socket(kind uint32, fd int) {
	b := u.s.Room(512)
	b.Call("socket", unix.SYS_SOCKET, unix.AF_UNIX, kind|unix.SOCK_NONBLOCK, 0)
	u.Settle(b, fd)
}

// own gives a socket its owner; one with a file shows the file's.
func (u *restorer) own(sock *dump.UnixSocket, fd int) {
	if sock.GetPath() == nil {
		u.s.Call("own socket", unix.SYS_FCHOWN, fd, sock.GetUid(), sock.GetGid())
	}
}

// connect connects a socket to the one that is bound as target is. client is what the other end is to see.
func (u *restorer) connect(fd int, target *dump.UnixSocket, client object.Author) {
	at, name := u.target(target)
	u.connectTo(fd, at, name, client)
}

func (u *restorer) connectTo(fd int, at spot, name []byte, client object.Author) {
	u.enter(at)
	u.as(client, func(b *remote.Batch) {
		addr, n := sockaddr(b, name)
		b.Call("connect to "+printable(name), unix.SYS_CONNECT, fd, addr, n)
	})
	u.leave(at)
}

// bind gives a socket its name. A socket file that is still there from before is replaced.
func (u *restorer) bind(sock *dump.UnixSocket, fd int) error {
	if len(sock.GetName()) == 0 {
		return nil
	}
	if sock.GetBoundDeleted() {
		file := u.Stage()
		u.bindAside(sock.GetName(), fd, file)
		if sock.GetName()[0] != 0 {
			u.deleted[sock.GetId()] = file
		}
		return nil
	}
	ref := sock.GetPath()
	if ref == nil {
		if sock.GetName()[0] != 0 {
			return fmt.Errorf("name %s without a file", printable(sock.GetName()))
		}
		u.bindTo(spot{}, sock.GetName(), fd)
		return nil
	}
	file := ref.GetPath()
	if !u.IsPlace(u.s, path.Dir(file)) {
		return fmt.Errorf("the directory of %s is not there: %w", file, object.ErrChanged)
	}
	b := u.s.Room(len(file) + 1024)
	st, found := object.Space[unix.Stat_t](b)
	there := b.Try("stat "+file, unix.SYS_NEWFSTATAT, unix.AT_FDCWD, b.String(file), st, unix.AT_SYMLINK_NOFOLLOW)
	if err := u.s.Run(); err != nil {
		return err
	}
	b = u.s.Room(2*len(file) + 1024)
	if _, err := b.Value(there); err == nil {
		if mode := found().Mode; mode&unix.S_IFMT != unix.S_IFSOCK {
			return fmt.Errorf("%s is no socket any more: %w", file, object.ErrChanged)
		}
		b.Call("unlink "+file, unix.SYS_UNLINKAT, unix.AT_FDCWD, b.String(file), 0)
	}
	at, err := spotOf(sock)
	if err != nil {
		return err
	}
	u.bindTo(at, sock.GetName(), fd)
	b = u.s.Room(2*len(file) + 1024)
	b.Call("set mode of "+file, unix.SYS_FCHMODAT, unix.AT_FDCWD, b.String(file), sock.GetMode()&0o7777)
	b.Call("own "+file, unix.SYS_FCHOWNAT, unix.AT_FDCWD, b.String(file), sock.GetUid(), sock.GetGid(), unix.AT_SYMLINK_NOFOLLOW)
	return nil
}

func (u *restorer) bindTo(at spot, name []byte, fd int) {
	u.enter(at)
	b := u.s.Room(1024)
	addr, n := sockaddr(b, name)
	b.Call("bind "+printable(name), unix.SYS_BIND, fd, addr, n)
	u.leave(at)
}

// sockaddr puts a struct sockaddr_un into the slot.
func sockaddr(b *remote.Batch, name []byte) (remote.Address, int) {
	data := append([]byte{unix.AF_UNIX, 0}, name...)
	if name[0] != 0 && len(name) < maxSocketName {
		data = append(data, 0)
	}
	return b.Data(data), len(data)
}

func printable(name []byte) string {
	if len(name) > 0 && name[0] == 0 {
		return fmt.Sprintf("@%q", name[1:])
	}
	return string(name)
}
